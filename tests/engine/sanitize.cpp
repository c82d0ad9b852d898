// A small driver of the kernel for the sanitizers: everything it can do, at sizes that are done in a moment.
#include "../../tdbench/engine/lanes.cpp"

#include <cstdio>

namespace {

int check(int n_images, int sets, int64_t batch, int threads, double lr) {
    std::vector<float> images(static_cast<size_t>(sets) * n_images * 3072);
    for (size_t i = 0; i < images.size(); i++) images[i] = static_cast<float>(i * 2654435761u % 1000) / 500 - 1;
    std::vector<uint8_t> labels(batch * n_images), train(batch * n_images);
    std::vector<uint64_t> seeds(batch);
    std::vector<int64_t> image_set(batch);
    for (int64_t b = 0; b < batch; b++) {
        seeds[b] = b, image_set[b] = b % sets;
        for (int i = 0; i < n_images; i++) {
            labels[b * n_images + i] = (i + b) % 3 == 0;
            train[b * n_images + i] = (i + b) % n_images != 0;
        }
    }
    const int steps = n_images < 100 ? 3 : 1;
    const int32_t cancel = 0;
    std::vector<float> curves(batch * steps), alone(batch * steps);
    const auto run = [&](int n_threads, std::vector<float>& out) {
        return lanes_curves(images.data(), n_images, labels.data(), train.data(), seeds.data(), image_set.data(), batch, steps,
                            lr, n_threads, &cancel, out.data());
    };
    if (run(threads, curves) != 0 || run(1, alone) != 0) return 1;
    return std::memcmp(curves.data(), alone.data(), curves.size() * sizeof(float)) == 0 ? 0 : 1;
}

}  // namespace

int main() {
    std::vector<float> weights(kParameters);
    lanes_initial_weights(7, weights.data());
    const int32_t cancelled = 1;
    int failures = 0;
    failures += check(2, 1, 1, 1, 1e-3);
    failures += check(7, 2, 3, 2, 1e-3);
    failures += check(9, 1, 1, 3, 1e-3);
    failures += check(5, 3, 4, 3, 1e30);
    failures += check(100, 2, 5, 2, 1e-3);
    failures += lanes_curves(nullptr, 2, nullptr, nullptr, nullptr, nullptr, 0, 1, 1, 1, &cancelled, nullptr) != 1;
    std::printf("%d failures\n", failures);
    return failures;
}
