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
            train[b * n_images + i] = b == 2 || (i + b) % n_images != 0;  // one has no validation side
        }
    }
    const int steps = n_images < 100 ? 3 : 1;
    const int32_t cancel = 0;
    struct Result {
        std::vector<float> curves, weights;
        bool operator==(const Result& other) const { return same(curves, other.curves) && same(weights, other.weights); }
        static bool same(const std::vector<float>& a, const std::vector<float>& b) {
            return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
        }
    };
    const auto run = [&](int n_threads, const float* initial, Result& out, bool frozen = false) {
        out.curves.resize(batch * steps), out.weights.resize(batch * kParameters);
        return lanes_train(images.data(), n_images, labels.data(), train.data(), initial ? nullptr : seeds.data(),
                           initial, image_set.data(), batch, steps, lr, frozen, n_threads, &cancel, out.curves.data(),
                           out.weights.data());
    };
    std::vector<float> initial(batch * kParameters);
    for (int64_t b = 0; b < batch; b++) lanes_initial_weights(seeds[b], initial.data() + b * kParameters);
    Result together, alone, given, frozen, frozen_alone;
    if (run(threads, nullptr, together) != 0 || run(1, nullptr, alone) != 0) return 1;
    if (run(threads, initial.data(), given) != 0) return 1;
    if (run(threads, nullptr, frozen, true) != 0 || run(1, nullptr, frozen_alone, true) != 0) return 1;
    return together == alone && together == given && frozen == frozen_alone ? 0 : 1;
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
    failures += lanes_train(nullptr, 2, nullptr, nullptr, nullptr, nullptr, nullptr, 0, 1, 1, 0, 1, &cancelled, nullptr,
                            nullptr) != 1;
    std::printf("%d failures\n", failures);
    return failures;
}
