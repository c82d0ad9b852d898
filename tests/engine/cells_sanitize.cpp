// A small driver of cells.cu for the sanitizers: everything that it can do, at sizes that are done in a moment.
#include "cells_shim.cpp"

#include <cstdio>
#include <cstring>

namespace {

struct Result {
    std::vector<float> weights, curves;
    bool operator==(const Result& other) const { return same(weights, other.weights) && same(curves, other.curves); }
    static bool same(const std::vector<float>& a, const std::vector<float>& b) {
        return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
    }
};

// Two networks on two image sets, from seeds or from given weights, in a launch of two steps and another of one.
Result train(int n, int threads, const std::vector<float>* initial, int frozen) {
    constexpr int sets = 2, networks = 2, steps = 3;
    std::vector<float> images(1ll * sets * n * kPixels), adam = {0.01f, 31.6f, 0.0053f, 22.4f, 0.0037f, 18.3f};
    for (size_t i = 0; i < images.size(); i++) images[i] = static_cast<float>(i * 2654435761u % 1000) / 500 - 1;
    const std::vector<int> image_set = {1, 0};
    const std::vector<Seed> seeds = {7, ~Seed{0}};
    std::vector<Byte> labels(networks * n), train(networks * n);
    for (int i = 0; i < networks * n; i++) labels[i] = i % 3 == 0, train[i] = i >= n || i % 4 != 1;  // no validation side
    std::vector<Four> scratch(networks * cells_scratch_floats(n) / 4);
    Result result{std::vector<float>(networks * kParameters), std::vector<float>(networks * steps)};
    if (initial) result.weights = *initial;
    for (int begin = 0; begin < steps; begin += 2) {
        const int end = begin + 2 < steps ? begin + 2 : steps;
        Work work = {images.data(), image_set.data(), labels.data(), train.data(), initial ? nullptr : seeds.data(),
                     adam.data(), result.weights.data(), scratch[0].at, result.curves.data(), n, steps, begin, end,
                     frozen};
        void* parameters[] = {&work};
        cells_launch(networks, threads, parameters);
    }
    return result;
}

}  // namespace

int main() {
    std::vector<float> initial(2 * kParameters);
    for (int k = 0; 4 * k < kParameters; k++)
        draw_four(7, k, initial.data()), draw_four(~Seed{0}, k, initial.data() + kParameters);
    int failures = 0;
    for (int n : {1, 6})
        for (int frozen : {0, 1}) {
            const Result three = train(n, 3, nullptr, frozen);
            failures += !(three == train(n, 1, &initial, frozen));
        }
    std::printf("%d failures\n", failures);
    return failures;
}
