// The native CPU kernel: trains many networks (definitions, section 3), one per thread, each vectorized inside.
//
// In every layer, the lanes of a vector hold the dimension that fills them and that allows work to be skipped:
//   forward     conv1: lanes are pooling windows (all images in a row); conv2 and dense layers: output channels.
//   backward    lanes are the taps of a kernel row. Of a 2x2 pooling window only the maximum passes a gradient on, so
//               one row of taps per window and channel is enough, not four. Validation images are left out.
// One network per lane (shared images, dense arithmetic everywhere) is slower: pooling maxima and validation images
// differ from lane to lane, so nothing can be skipped, and 16 networks do not fit into the caches.
//
// Batch-invariance: trainings share no arithmetic. If there are more threads than trainings, a team of threads shares
// one. A team splits work by image or by weight, never a sum, so the bits stay the same.
// The compiler must not fuse or reorder operations (-ffp-contract=off, no fast-math): only `fma` below is fused.
//
// The file is compiled once per instruction set; lanes per vector and register blocking follow from it.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <type_traits>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace {

// ---------------------------------------------------------------------------------------------- vector type

#if defined(__AVX512F__)
constexpr int L = 16;
constexpr int kRegisters = 32;
#elif defined(__AVX2__)
constexpr int L = 8;
constexpr int kRegisters = 16;
#elif defined(__aarch64__)
constexpr int L = 4;
constexpr int kRegisters = 32;
#else
constexpr int L = 4;
constexpr int kRegisters = 16;
#endif

typedef float V __attribute__((vector_size(L * 4)));
typedef int32_t I __attribute__((vector_size(L * 4)));  // comparison masks and indices
typedef uint8_t Bytes __attribute__((vector_size(L)));  // indices in memory
typedef float Unaligned __attribute__((vector_size(L * 4), aligned(4), may_alias));

#define INLINE inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

INLINE V splat(float x) { return x - V{}; }  // subtracting zero is exact for -0 too, so the compiler drops it
INLINE I splat_int(int32_t x) { return I{} + x; }

INLINE V load(const float* p) { return *reinterpret_cast<const Unaligned*>(p); }
INLINE void store(float* p, V v) { *reinterpret_cast<Unaligned*>(p) = v; }
INLINE void store(uint8_t* p, Bytes b) { std::memcpy(p, &b, sizeof b); }

INLINE V fma(V a, V b, V c) {
#if defined(__AVX512F__)
    return (V)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
    return (V)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
    return (V)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

INLINE V square_root(V a) {
#if defined(__AVX512F__)
    return (V)_mm512_sqrt_ps((__m512)a);
#elif defined(__AVX2__)
    return (V)_mm256_sqrt_ps((__m256)a);
#elif defined(__x86_64__)
    return (V)_mm_sqrt_ps((__m128)a);
#elif defined(__aarch64__)
    return (V)vsqrtq_f32((float32x4_t)a);
#else
    for (int l = 0; l < L; l++) a[l] = std::sqrt(a[l]);
    return a;
#endif
}

// ------------------------------------------------------------------------------------------------- functions

INLINE V absolute(V x) { return (V)((I)x & 0x7fffffff); }

// NaN stays NaN, so that a diverged training cannot get finite values again.
INLINE V relu(V x) { return x <= 0.0f ? V{} : x; }

// exp(x) for x <= 0, within 2 ulp; 0 below -87 where float32 turns subnormal; NaN for NaN.
// Cody-Waite reduction by ln 2 and the Taylor polynomial of degree 7 on |r| <= ln(2) / 2.
INLINE V exp_nonpositive(V x) {
    const I tiny = x < -87.0f;
    const V clamped = tiny ? splat(-87.0f) : x;
    const V shifted =
        fma(clamped, splat(1.44269504f), splat(12582912.0f));  // 1.5 * 2^23: the integer part, in the low bits
    const V n = shifted - 12582912.0f;
    V r = fma(n, splat(-0.693359375f), clamped);
    r = fma(n, splat(2.12194440e-4f), r);
    V p = splat(1.0f / 5040);
    p = fma(p, r, splat(1.0f / 720));
    p = fma(p, r, splat(1.0f / 120));
    p = fma(p, r, splat(1.0f / 24));
    p = fma(p, r, splat(1.0f / 6));
    p = fma(p, r, splat(0.5f));
    p = fma(p, r, splat(1.0f));
    p = fma(p, r, splat(1.0f));
    typedef uint32_t U __attribute__((vector_size(L * 4)));
    const V scale = (V)(((U)shifted << 23) + 0x3f800000u);
    return tiny ? V{} : p * scale;
}

// log(1 + x) for 0 <= x <= 1, within 2 ulp: 2 artanh(s), s = x / (2 + x) <= 1/3, as its odd power series.
INLINE V log_one_plus(V x) {
    const V s = x / (x + 2.0f), q = s * s;
    V p = splat(1.0f / 17);
    p = fma(p, q, splat(1.0f / 15));
    p = fma(p, q, splat(1.0f / 13));
    p = fma(p, q, splat(1.0f / 11));
    p = fma(p, q, splat(1.0f / 9));
    p = fma(p, q, splat(1.0f / 7));
    p = fma(p, q, splat(1.0f / 5));
    p = fma(p, q, splat(1.0f / 3));
    const V twice = s + s;
    return fma(twice * q, p, twice);
}

// --------------------------------------------------------------------------------------------------- network

// 3x32x32 -> conv 5x5 (6) -> pool -> 14x14x6 -> conv 5x5 (16) -> pool -> 5x5x16 -> 120 -> 84 -> 2.
// Activations are stored position by position, channels innermost. A `tap` is (ky, kx, channel), channel innermost.
constexpr int kPixels = 3 * 32 * 32;
constexpr int kSide1 = 14, kWindows1 = 14 * 14, kOut1 = 6, kActs1 = kWindows1 * kOut1, kRow1 = 14 * kOut1;
constexpr int kSide2 = 5, kWindows2 = 5 * 5, kOut2 = 16, kTaps2 = 150, kActs2 = kWindows2 * kOut2;
constexpr int kFan1 = 16, kFan2 = 32;  // the 15 and 30 taps of a kernel row, padded to whole vectors

// A dense layer: rows of `row` >= outputs columns, in blocks of Vectors vectors: [column block][input][column
// in block]. Every input row ends with a constant 1, so the bias is the weight of one more input.
template <int Inputs, int Outputs, int Row, int Vectors>
struct Dense {
    static constexpr int inputs = Inputs, outputs = Outputs, row = Row, vectors = Vectors;
    static constexpr int block = Vectors * L, blocks = Row / block;
    static_assert(Row % block == 0 && Row >= Outputs, "whole blocks");
    static constexpr int at(int input, int output, int n_inputs) {
        return (output / block * n_inputs + input) * block + output % block;
    }
    static constexpr int size = (Inputs + 1) * Row;
};
// The same weights with inputs and outputs exchanged carry the gradient back.
using Fc1 = Dense<400, 120, 128, 4>;
using Fc2 = Dense<120, 84, 96, 3>;
using Fc3 = Dense<84, 2, 16, 1>;
using Fc1Back = Dense<120, 400, 400, 5>;
using Fc2Back = Dense<84, 120, 128, 4>;
using Fc3Back = Dense<2, 84, 96, 3>;
constexpr int kRow2 = 416;  // the 400 inputs of fc1, the constant 1, padding

// Layout of a training's weights (and their moments): conv [o][ky][padded taps of a row], bias[16], then dense layers.
constexpr int kConv1 = 0, kBias1 = kConv1 + kOut1 * 5 * kFan1;
constexpr int kConv2 = kBias1 + 16, kBias2 = kConv2 + kOut2 * 5 * kFan2;
constexpr int kFc1 = kBias2 + 16, kFc2 = kFc1 + Fc1::size, kFc3 = kFc2 + Fc2::size, kWeights = kFc3 + Fc3::size;
constexpr int kParameters = 61326;

// For each of PyTorch's flat parameters (tdbench/engine/networks.py): its place here, and its bound 1/sqrt(fan_in).
struct Layout {
    std::vector<int> place;
    std::vector<float> bound;

    Layout() {
        for (int o = 0; o < 6; o++)
            for (int c = 0; c < 3; c++)
                for (int k = 0; k < 25; k++) add(kConv1 + (o * 5 + k / 5) * kFan1 + k % 5 * 3 + c, 75);
        for (int o = 0; o < 6; o++) add(kBias1 + o, 75);
        for (int o = 0; o < 16; o++)
            for (int c = 0; c < 6; c++)
                for (int k = 0; k < 25; k++) add(kConv2 + (o * 5 + k / 5) * kFan2 + k % 5 * 6 + c, 150);
        for (int o = 0; o < 16; o++) add(kBias2 + o, 150);
        dense<Fc1>(kFc1, [](int i) { return i % 25 * 16 + i / 25; });  // PyTorch flattens channel by channel
        dense<Fc2>(kFc2, [](int i) { return i; });
        dense<Fc3>(kFc3, [](int i) { return i; });
    }

    static const Layout& get() {
        static const Layout layout;
        return layout;
    }

private:
    void add(int where, int fan_in) {
        place.push_back(where);
        bound.push_back(static_cast<float>(1.0 / std::sqrt(static_cast<double>(fan_in))));
    }
    template <class D, class Order>
    void dense(int offset, Order order) {
        for (int j = 0; j < D::outputs; j++)
            for (int i = 0; i < D::inputs; i++) add(offset + D::at(order(i), j, D::inputs + 1), D::inputs);
        for (int j = 0; j < D::outputs; j++) add(offset + D::at(D::inputs, j, D::inputs + 1), D::inputs);
    }
};

// Philox4x32-10 (Salmon et al., SC 2011) as tdbench/base/rng.py defines it, stream WEIGHTS = 1.
// out(flat index, value): weight i is word i % 4 of block i / 4, upper 24 bits mapped to [-1, 1), times its bound.
template <class Out>
void draw_weights(uint64_t seed, Out out) {
    const Layout& layout = Layout::get();
    for (int block = 0; block * 4 < kParameters; block++) {
        uint32_t c[4] = {static_cast<uint32_t>(block), 0, 1, 0};
        uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
        for (int round = 0; round < 10; round++) {
            const uint64_t p0 = uint64_t{0xD2511F53} * c[0], p1 = uint64_t{0xCD9E8D57} * c[2];
            c[0] = static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0;
            c[2] = static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1;
            c[1] = static_cast<uint32_t>(p1), c[3] = static_cast<uint32_t>(p0);
            k0 += 0x9E3779B9, k1 += 0xBB67AE85;
        }
        for (int word = 0; word < 4 && block * 4 + word < kParameters; word++) {
            const int flat = block * 4 + word;
            const float unit = static_cast<float>(static_cast<int32_t>(c[word] >> 8)) * 0x1p-23f - 1.0f;
            out(flat, unit * layout.bound[flat]);
        }
    }
}

// ----------------------------------------------------------------------------------------------------- memory

// One block of memory in huge pages, handed out piece by piece.
class Workspace {
public:
    explicit Workspace(size_t bytes) : size_(round(bytes, kPage)) {
        memory_ = static_cast<char*>(::operator new(size_, std::align_val_t{kPage}));
#if defined(__linux__) && defined(MADV_HUGEPAGE)
        madvise(memory_, size_, MADV_HUGEPAGE);
#endif
    }
    ~Workspace() { ::operator delete(memory_, std::align_val_t{kPage}); }
    Workspace(const Workspace&) = delete;
    Workspace& operator=(const Workspace&) = delete;

    void clear() { used_ = 0; }
    template <class T>
    T* take(size_t count) {
        T* p = reinterpret_cast<T*>(memory_ + used_);
        used_ += round(count * sizeof(T), 64) + 64;  // an extra line, so that arrays use different cache sets
        if (used_ > size_) throw std::logic_error("the workspace is too small");
        return p;
    }
    template <class T>
    T* take_zeros(size_t count) {
        T* p = take<T>(count);
        std::memset(static_cast<void*>(p), 0, count * sizeof(T));
        return p;
    }

private:
    static constexpr size_t kPage = size_t{2} << 20;
    static size_t round(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }
    size_t size_, used_ = 0;
    char* memory_ = nullptr;
};

// ---------------------------------------------------------------------------------------- images, prepared once

constexpr int kPatch = 6 * 6 * 3;          // pixels under the four 5x5 kernels of a pooling window, or their transform
constexpr int kTapRows = 32 * 28 * kFan1;  // every run of 15 pixels that a kernel row can lie on

// B' x of Winograd's F(2, 5) for six numbers (see conv1_forward).
template <class T>
INLINE void transform_patch(const T* x, int step, T* out, int out_step) {
    const T x0 = x[0], x1 = x[step], x2 = x[2 * step], x3 = x[3 * step], x4 = x[4 * step], x5 = x[5 * step];
    out[0] = 4 * x0 - 5 * x2 + x4;
    out[out_step] = (x4 - 4 * x2) + (x3 - 4 * x1);
    out[2 * out_step] = (x4 - 4 * x2) - (x3 - 4 * x1);
    out[3 * out_step] = (x4 - x2) + 2 * (x3 - x1);
    out[4 * out_step] = (x4 - x2) - 2 * (x3 - x1);
    out[5 * out_step] = 4 * x1 - 5 * x3 + x5;
}

// What all trainings of one image set share.
//   patches   transformed, [windows of all images in a row, L at a time][6][6][channel][L]
//   tap_rows  [image][y][x][padded taps], so that rows of taps are aligned at every position
struct ImageSet {
    static int vectors(int n) { return (n * kWindows1 + L - 1) / L; }
    static size_t bytes(int n) {
        return (static_cast<size_t>(vectors(n)) * kPatch * L + static_cast<size_t>(n) * kTapRows) * sizeof(float) +
               4096;
    }

    ImageSet(const float* images, int n) : space(bytes(n)) {
        patches = space.take_zeros<float>(static_cast<size_t>(vectors(n)) * kPatch * L);
        tap_rows = space.take_zeros<float>(static_cast<size_t>(n) * kTapRows);
        for (int i = 0; i < n; i++) {
            const float* image = images + static_cast<size_t>(i) * kPixels;
            for (int window = 0; window < kWindows1; window++) {
                const int flat = i * kWindows1 + window;
                float* to = patches + static_cast<size_t>(flat / L) * kPatch * L + flat % L;
                for (int c = 0; c < 3; c++) {
                    double half[36], whole[36];
                    for (int y = 0; y < 6; y++) {
                        double x[6];
                        for (int k = 0; k < 6; k++)
                            x[k] = image[c * 1024 + (window / 14 * 2 + y) * 32 + window % 14 * 2 + k];
                        transform_patch(x, 1, half + y * 6, 1);
                    }
                    for (int k = 0; k < 6; k++) transform_patch(half + k, 6, whole + k, 6);
                    for (int s = 0; s < 36; s++) to[(s * 3 + c) * L] = static_cast<float>(whole[s]);
                }
            }
            float* row = tap_rows + static_cast<size_t>(i) * kTapRows;
            for (int y = 0; y < 32; y++)
                for (int x = 0; x < 28; x++, row += kFan1)
                    for (int t = 0; t < 15; t++) row[t] = image[t % 3 * 1024 + y * 32 + x + t / 3];
        }
    }

    Workspace space;
    float *patches, *tap_rows;
};

// ---------------------------------------------------------------------------------------------- forward layers

// Max over a 2x2 window, then ReLU. As in PyTorch, the first of several equal maxima is taken, and NaN stays NaN.
INLINE void pool_relu(const V& c0, const V& c1, const V& c2, const V& c3, V& out, Bytes& arg) {
    I k = c1 > c0;
    V m = k ? c1 : c0;
    I index = k & 1;
    k = c2 > m;
    m = k ? c2 : m;
    index = k ? splat_int(2) : index;
    k = c3 > m;
    m = k ? c3 : m;
    index = k ? splat_int(3) : index;
#if defined(__AVX512F__)
    const __mmask16 nan = _mm512_cmp_ps_mask((__m512)c1, (__m512)c2, _CMP_UNORD_Q) |
                          _mm512_cmp_ps_mask((__m512)c3, (__m512)c3, _CMP_UNORD_Q);
    out = (V)_mm512_mask_mov_ps((__m512)relu(m), nan, _mm512_set1_ps(std::numeric_limits<float>::quiet_NaN()));
#else
    const I nan = (c1 != c1) | (c2 != c2) | (c3 != c3);
    out = nan ? splat(std::numeric_limits<float>::quiet_NaN()) : relu(m);
#endif
    arg = __builtin_convertvector(index, Bytes);
}

// Forward conv1 by Winograd's minimal filtering F(2x2, 5x5) (Lavin and Gray, CVPR 2016, with the points 0, 1, -1, 2, -2
// and infinity): the 4 outputs of a pooling window come from 6x6 products per channel instead of 4 * 5x5. The images'
// side of the transform is done once per image set, the kernels' side once per step.
//   outputs = A' [sum over channels of (G kernel G') * (B' patch B)] A

// G x for five numbers.
INLINE void transform_kernel(const double* x, int step, double* out, int out_step) {
    const double even = x[0] + x[2 * step] + x[4 * step], odd = x[step] + x[3 * step];
    const double even2 = x[0] + 4 * x[2 * step] + 16 * x[4 * step], odd2 = 2 * x[step] + 8 * x[3 * step];
    out[0] = x[0] / 4;
    out[out_step] = -(even + odd) / 6;
    out[2 * out_step] = -(even - odd) / 6;
    out[3 * out_step] = (even2 + odd2) / 24;
    out[4 * out_step] = (even2 - odd2) / 24;
    out[5 * out_step] = x[4 * step];
}

// A' m for six vectors.
INLINE void transform_back(const V* m, int step, V& first, V& second) {
    const V near = m[step] + m[2 * step], far = m[3 * step] + m[4 * step];
    first = m[0] + near + far;
    second = fma(m[3 * step] - m[4 * step], splat(2.0f), m[step] - m[2 * step]) + m[5 * step];
}

// L windows at `patch` [6][6][channel], all outputs of `kernels` [6][output][6][channel]. Writes a1[window][o] and
// arg[o][window].
INLINE void conv1_forward(const float* patch, const float* kernels, const float* bias, float* a1, uint8_t* arg,
                          size_t arg_stride) {
    V half[kOut1][2][6];  // transformed back along x
    for (int i = 0; i < 6; i++) {
        V x[6][3];
        UNROLL for (int k = 0; k < 6; k++)
            UNROLL for (int c = 0; c < 3; c++) x[k][c] = load(patch + ((i * 6 + k) * 3 + c) * L);
        for (int o = 0; o < kOut1; o++) {
            const float* u = kernels + (i * kOut1 + o) * 18;
            V m[6];
            UNROLL for (int k = 0; k < 6; k++)
                m[k] = fma(x[k][2], splat(u[k * 3 + 2]), fma(x[k][1], splat(u[k * 3 + 1]), x[k][0] * splat(u[k * 3])));
            transform_back(m, 1, half[o][0][i], half[o][1][i]);
        }
    }
    float lanes[kOut1][L];
    for (int o = 0; o < kOut1; o++) {
        V c0, c1, c2, c3, pooled;
        transform_back(half[o][0], 1, c0, c2);
        transform_back(half[o][1], 1, c1, c3);
        const V b = splat(bias[o]);
        Bytes index;
        pool_relu(c0 + b, c1 + b, c2 + b, c3 + b, pooled, index);
        store(lanes[o], pooled);
        store(arg + o * arg_stride, index);
    }
    for (int l = 0; l < L; l++)
        for (int o = 0; o < kOut1; o++) a1[l * kOut1 + o] = lanes[o][l];
}

// One image. w[tap][o]; writes a2[window][o] and arg[window][o]; `windows` of a row and `vectors` of channels at once.
INLINE void conv2_forward(const float* a1, const float* w, const float* bias, float* a2, uint8_t* arg) {
    constexpr int windows = L == 16 ? 5 : 1, vectors = L == 16 ? 1 : kRegisters == 32 ? 4 : 2;
    for (int o = 0; o < kOut2; o += vectors * L)
        for (int wy = 0; wy < kSide2; wy++)
            for (int wx = 0; wx < kSide2; wx += windows) {
                V c[2][2 * windows][vectors];
                UNROLL for (int v = 0; v < vectors; v++)
                    UNROLL for (int x = 0; x < 2 * windows; x++) c[0][x][v] = c[1][x][v] = load(bias + o + v * L);
                for (int ky = 0; ky < 5; ky++) {
                    const float* top = a1 + (2 * wy + ky) * kRow1 + 2 * wx * kOut1;
                    const float* wk = w + ky * 30 * kOut2 + o;
                    for (int t = 0; t < 30; t++)
                        UNROLL for (int v = 0; v < vectors; v++) {
                            const V q = load(wk + t * kOut2 + v * L);
                            UNROLL for (int x = 0; x < 2 * windows; x++) {
                                c[0][x][v] = fma(splat(top[t + x * kOut1]), q, c[0][x][v]);
                                c[1][x][v] = fma(splat(top[t + x * kOut1 + kRow1]), q, c[1][x][v]);
                            }
                        }
                }
                UNROLL for (int x = 0; x < windows; x++)
                    UNROLL for (int v = 0; v < vectors; v++) {
                        const int at = (wy * kSide2 + wx + x) * kOut2 + o + v * L;
                        V pooled;
                        Bytes index;
                        pool_relu(c[0][2 * x][v], c[0][2 * x + 1][v], c[1][2 * x][v], c[1][2 * x + 1][v], pooled,
                                  index);
                        store(a2 + at, pooled);
                        store(arg + at, index);
                    }
            }
}

// Cuts a range into nearly equal tiles of at most `Most` and calls body(start, size), the size a compile-time constant.
template <int Most, class Body>
INLINE void tiles(int begin, int end, Body body) {
    static_assert(Most <= 8, "cases below");
    const int pieces = (end - begin + Most - 1) / Most;
    for (int p = 0; p < pieces; p++) {
        const int from = begin + (end - begin) * p / pieces, to = begin + (end - begin) * (p + 1) / pieces;
        const auto run = [&](auto size) {
            if constexpr (decltype(size)::value <= Most) body(from, size);
        };
        switch (to - from) {
            case 1: run(std::integral_constant<int, 1>{}); break;
            case 2: run(std::integral_constant<int, 2>{}); break;
            case 3: run(std::integral_constant<int, 3>{}); break;
            case 4: run(std::integral_constant<int, 4>{}); break;
            case 5: run(std::integral_constant<int, 5>{}); break;
            case 6: run(std::integral_constant<int, 6>{}); break;
            case 7: run(std::integral_constant<int, 7>{}); break;
            case 8: run(std::integral_constant<int, 8>{}); break;
        }
    }
}
constexpr int kAccumulators = kRegisters == 32 ? 25 : 12;
constexpr int tile(int vectors) { return std::min(8, kAccumulators / vectors); }

// out[n][j] = finish(sum_i in[n][i] w[i][j]) for rows begin..end; the sum runs over n_inputs of D's inputs.
template <class D, class Finish>
void dense(const float* in, int in_row, const float* w, int n_inputs, float* out, int begin, int end, Finish finish) {
    tiles<tile(D::vectors)>(begin, end, [&](int n, auto size) {
        constexpr int rows = decltype(size)::value;
        const float* x = in + static_cast<size_t>(n) * in_row;
        for (int jb = 0; jb < D::blocks; jb++) {
            const float* q = w + static_cast<size_t>(jb) * n_inputs * D::block;
            V c[rows][D::vectors] = {};
            for (int i = 0; i < n_inputs; i++, q += D::block)
                UNROLL for (int a = 0; a < rows; a++)
                    UNROLL for (int v = 0; v < D::vectors; v++)
                        c[a][v] = fma(splat(x[a * in_row + i]), load(q + v * L), c[a][v]);
            UNROLL for (int a = 0; a < rows; a++)
                UNROLL for (int v = 0; v < D::vectors; v++) {
                    const size_t at = static_cast<size_t>(n + a) * D::row + jb * D::block + v * L;
                    store(out + at, finish(c[a][v], n + a, jb * D::block + v * L));
                }
        }
    });
}

// Cross-entropy of two logits and its gradient. `label` is a lane mask, `scale` is 1 / (size of train side).
INLINE V loss_and_gradient(const V* logits, I label, V scale, V* gradient) {
    const V difference = label ? logits[0] - logits[1] : logits[1] - logits[0];  // wrong minus right
    const V e = exp_nonpositive(-absolute(difference));
    const V positive = difference <= 0.0f ? V{} : difference;
    const V wrong = (difference <= 0.0f ? e : splat(1.0f)) / (e + 1.0f);  // probability of the wrong class
    const V g = wrong * scale;
    gradient[0] = label ? g : -g;
    gradient[1] = label ? -g : g;
    return positive + log_one_plus(e);
}

// --------------------------------------------------------------------------------------------- backward layers

// Adam as in torch.optim.Adam: betas 0.9 and 0.999, eps 1e-8, bias corrections in double.
struct Adam {
    float step, root;

    Adam(double lr, int t)
        : step(static_cast<float>(lr / (1 - std::pow(0.9, t)))),
          root(static_cast<float>(1 / std::sqrt(1 - std::pow(0.999, t)))) {}

    INLINE void update(V g, V& w, V& m, V& v) const {
        m = fma(splat(0.1f), g - m, m);
        v = fma(g * 0.001f, g, v * 0.999f);
        w = fma(splat(-step), m / fma(square_root(v), splat(root), splat(1e-8f)), w);
    }
};

INLINE void adam_in_place(const Adam& adam, V gradient, float* w, float* m, float* v) {
    V wv = load(w), mv = load(m), vv = load(v);
    adam.update(gradient, wv, mv, vv);
    store(w, wv), store(m, mv), store(v, vv);
}

// Weight gradient of inputs begin..end of one column block and its Adam update: the gradient never leaves the
// registers, and weights and moments pass through the caches once.
template <class D>
void dense_update(const float* in, int in_row, const float* delta, int n_rows, int jb, int begin, int end,
                  const Adam& adam, float* w, float* m, float* v) {
    tiles<tile(D::vectors)>(begin, end, [&](int i, auto size) {
        constexpr int inputs = decltype(size)::value;
        V c[inputs][D::vectors] = {};
        for (int n = 0; n < n_rows; n++) {
            const float* x = in + static_cast<size_t>(n) * in_row + i;
            const float* d = delta + static_cast<size_t>(n) * D::row + jb * D::block;
            UNROLL for (int a = 0; a < inputs; a++)
                UNROLL for (int k = 0; k < D::vectors; k++) c[a][k] = fma(splat(x[a]), load(d + k * L), c[a][k]);
        }
        UNROLL for (int a = 0; a < inputs; a++)
            UNROLL for (int k = 0; k < D::vectors; k++) {
                const size_t at = (static_cast<size_t>(jb) * (D::inputs + 1) + i + a) * D::block + k * L;
                adam_in_place(adam, c[a][k], w + at, m + at, v + at);
            }
    });
}

// conv2's kernels for its input gradient: [px][o][7 rows][48]. Kernel row ky lies in row 1 + ky between rows of zeros,
// shifted by px positions, so that the rows under a 6x6 patch of a1 can be read for every output of the window.
constexpr int kShiftRow = 48, kShiftOut = 7 * kShiftRow, kShifted = 2 * kOut2 * kShiftOut;

// One image: d_a1[y][x][c] gets kernel * gradient around the maximum of each window. d_a1 has kShiftRow floats of
// slack.
INLINE void conv2_input_gradient(const float* d2, const uint8_t* arg, const float* shifted, float* d_a1) {
    constexpr int vectors = (36 + L - 1) / L, rows = L == 16 ? 6 : kRegisters == 32 ? 2 : L == 8 ? 2 : 1;
    std::memset(d_a1, 0, kActs1 * sizeof(float));
    for (int window = 0; window < kWindows2; window++)
        for (int r = 0; r < 6; r += rows) {
            V c[rows][vectors] = {};
            for (int o = 0; o < kOut2; o++) {
                const int top = arg[window * kOut2 + o];
                const V d = splat(d2[window * kOut2 + o]);
                const float* w = shifted + ((top & 1) * kOut2 + o) * kShiftOut + (1 - (top >> 1) + r) * kShiftRow;
                UNROLL for (int y = 0; y < rows; y++)
                    UNROLL for (int i = 0; i < vectors; i++) c[y][i] = fma(d, load(w + y * kShiftRow + i * L), c[y][i]);
            }
            float* to = d_a1 + (window / kSide2 * 2 + r) * kRow1 + window % kSide2 * 2 * kOut1;
            UNROLL for (int y = 0; y < rows; y++)
                UNROLL for (int i = 0; i < vectors; i++) {
                    float* at = to + y * kRow1 + i * L;
                    store(at, load(at) + c[y][i]);
                }
        }
}

// ------------------------------------------------------------------------------------------------ one training

struct Call {
    const float* images;       // (S, N, 3, 32, 32)
    int n_images;              // N
    const uint8_t* labels;     // (B, N)
    const uint8_t* train;      // (B, N)
    const uint64_t* seeds;     // (B,), read if there are no initial weights
    const float* initial;      // (B, kParameters) in PyTorch's flat order, or null
    const int64_t* image_set;  // (B,)
    int steps;
    double lr;
    const std::atomic<int32_t>* cancel;
    float* curves;   // (B, steps), NaN without a validation side
    float* trained;  // (B, kParameters) in PyTorch's flat order, or null
    bool frozen;     // the convolutions keep their initial weights, so what they compute is the same in all steps

    bool convolves(int t) const { return t == 1 || !frozen; }
    bool cancelled() const { return cancel->load(std::memory_order_relaxed) != 0; }
};

#if defined(LANES_PROFILE)
double g_laps[16];
struct Lap {
    static double now() {
        timespec t;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
    }
    double t = now();
    void operator()(int i) {
        const double before = t;
        t = now();
        g_laps[i] += t - before;
    }
};
#else
struct Lap {
    void operator()(int) {}
};
#endif

float canonical(float x) { return std::isnan(x) ? std::numeric_limits<float>::quiet_NaN() : x; }

// Threads that train one network together.
class Team {
public:
    explicit Team(int size) : size(size) {}
    const int size;

    void wait() {
        const int round = round_.load(std::memory_order_acquire);
        if (waiting_.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
            waiting_.store(0, std::memory_order_relaxed);
            round_.store(round + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; round_.load(std::memory_order_acquire) == round; spins++)
            if (spins > 2000) std::this_thread::yield();
    }

private:
    std::atomic<int> waiting_{0}, round_{0};
};

class Training {
public:
    static size_t bytes(int n) {
        const size_t images = n + 2 * L;  // vectors of windows or of images may extend beyond the last image
        const size_t per_image = (2 * kActs1 + kRow2 + 400 + 2 * (128 + 96 + 16) + 4) * sizeof(float) + kActs1 + kActs2;
        return images * per_image + (3 * kWeights + kTransposed + kForward + kShifted) * sizeof(float) + 65536;
    }

    Training(const Call& call, int64_t b, const ImageSet& set, Workspace& space)
        : call_(call), b_(b), N(call.n_images), set_(set) {
        const size_t n = static_cast<size_t>(N) + 2 * L;
        w = space.take_zeros<float>(kWeights), m = space.take_zeros<float>(kWeights),
        v = space.take_zeros<float>(kWeights);
        back = space.take_zeros<float>(kTransposed);
        forward = space.take_zeros<float>(kForward), shifted = space.take_zeros<float>(kShifted);
        a1 = space.take_zeros<float>(n * kActs1), d1 = space.take_zeros<float>(n * kActs1);
        a2 = space.take_zeros<float>(n * kRow2), d2 = space.take_zeros<float>(n * 400);
        h3 = space.take_zeros<float>(n * Fc1::row), d3 = space.take_zeros<float>(n * Fc1::row);
        h4 = space.take_zeros<float>(n * Fc2::row), d4 = space.take_zeros<float>(n * Fc2::row);
        h5 = space.take_zeros<float>(n * Fc3::row), d5 = space.take_zeros<float>(n * Fc3::row);
        loss = space.take_zeros<float>(n), label = space.take_zeros<float>(n);
        arg1 = space.take_zeros<uint8_t>(n * kActs1), arg2 = space.take_zeros<uint8_t>(n * kActs2);

        // Rows of the dense layers: the training images first, so that the backward pass takes a range of rows.
        order.reserve(N);
        for (int side = 1; side >= 0; side--) {
            for (int i = 0; i < N; i++)
                if ((call.train[b * N + i] != 0) == (side == 1)) order.push_back(i);
            if (side == 1) T = static_cast<int>(order.size());
        }
        row.resize(N);
        for (int r = 0; r < N; r++) row[order[r]] = r, label[r] = call.labels[b * N + order[r]] ? 1.0f : 0.0f;

        const Layout& layout = Layout::get();
        const auto set_weight = [&](int flat, float value) { w[layout.place[flat]] = value; };
        if (call.initial == nullptr) {
            draw_weights(call.seeds[b], set_weight);
        } else {
            for (int flat = 0; flat < kParameters; flat++) set_weight(flat, call.initial[b * kParameters + flat]);
        }
        // The constant inputs 1 of the next layers: a column with bias 1 and zero weights, which gets no gradient.
        for (int r = 0; r < N; r++) a2[static_cast<size_t>(r) * kRow2 + 400] = 1.0f;
        w[kFc1 + Fc1::at(400, 120, 401)] = 1.0f;
        w[kFc2 + Fc2::at(120, 84, 121)] = 1.0f;
        publish_conv1();
        publish_conv2(0, kOut2);
        for (int jb = 0; jb < Fc1::blocks; jb++) publish_dense<Fc1, Fc1Back>(kFc1, kBack1, jb, 0, 400);
        for (int jb = 0; jb < Fc2::blocks; jb++) publish_dense<Fc2, Fc2Back>(kFc2, kBack2, jb, 0, 120);
        for (int jb = 0; jb < Fc3::blocks; jb++) publish_dense<Fc3, Fc3Back>(kFc3, kBack3, jb, 0, 84);
    }

    // The work of one member of the team; each member calls it. Ends early when cancelled.
    void run(Team& team, int rank) {
        const auto share = [&](int count, int i) {
            return static_cast<int>(static_cast<int64_t>(count) * i / team.size);
        };
        for (int t = 1; t <= call_.steps; t++) {
            Lap lap;
            // Four images are a whole number of vectors of windows.
            const int fours = (N + 3) / 4;
            const int begin = 4 * share(fours, rank), end = std::min(N, 4 * share(fours, rank + 1));
            const bool convolves = call_.convolves(t);
            for (int x = begin * kWindows1 / L; convolves && x * L < end * kWindows1; x++) convolve1(x);
            lap(0);
            for (int n = begin; convolves && n < end; n++) convolve2(n);
            lap(1);
            if (rank == 0) stop_ = call_.cancelled();
            team.wait();
            if (stop_) return;
            classify(share(N, rank), share(N, rank + 1), lap);
            team.wait();
            if (rank == 0) write_loss(t);
            if (t == call_.steps && call_.trained == nullptr) return;  // the last update is not used
            if (!call_.frozen) backward_to_conv1(share(T, rank), share(T, rank + 1));
            lap(3);
            team.wait();
            update(Adam(call_.lr, t), team, rank, lap);
            team.wait();
            if (rank == 0 && !call_.frozen) publish_conv1();
            lap(8);
            team.wait();
        }
        if (rank == 0) write_weights();
    }

    // Trains several networks of one image set side by side on this thread. Reading the images in the first layer is
    // most of the memory traffic, and is done once for all of them.
    static void run_abreast(Training* const* all, int count) {
        const Training& first = *all[0];
        const Call& call = first.call_;
        const int N = first.N;
        const Team alone(1);
        const auto each = [&](auto body) {
            for (int k = 0; k < count; k++) body(*all[k]);
        };
        for (int t = 1; t <= call.steps && !call.cancelled(); t++) {
            Lap lap;
            for (int x = 0; call.convolves(t) && x < ImageSet::vectors(N); x++)
                each([&](Training& one) { one.convolve1(x); });
            lap(0);
            each([&](Training& one) {
                for (int n = 0; call.convolves(t) && n < N; n++) one.convolve2(n);
                lap(1);
                one.classify(0, N, lap);
                one.write_loss(t);
            });
            if (t == call.steps && call.trained == nullptr) return;
            const Adam adam(call.lr, t);
            if (call.frozen) {
                each([&](Training& one) { one.update_dense_layers(adam, alone, 0, lap); });
                continue;
            }
            each([&](Training& one) {
                one.backward_to_conv1(0, one.T);
                lap(3);
                one.conv1_clear(0, kOut1);
            });
            for (int n = 0; n < N; n++)
                each([&](Training& one) {
                    if (one.row[n] < one.T) one.conv1_add(one.row[n], 0, kOut1);
                });
            lap(4);
            each([&](Training& one) {
                one.conv1_update(adam, 0, kOut1);
                one.update_after_conv1(adam, alone, 0, lap);
                one.publish_conv1();
                lap(8);
            });
        }
        if (!call.cancelled()) each([](Training& one) { one.write_weights(); });
    }

private:
    // Copies of weights, in the order in which a pass reads them.
    static constexpr int kBack1 = 0, kBack2 = kBack1 + 120 * 400, kBack3 = kBack2 + 84 * 128,
                         kTransposed = kBack3 + 2 * 96;
    static constexpr int kKernels1 = 0, kTapsOuts2 = 704, kForward = kTapsOuts2 + kTaps2 * kOut2;

    void publish_conv1() {
        for (int o = 0; o < kOut1; o++)
            for (int c = 0; c < 3; c++) {
                double kernel[25], half[30], whole[36];
                for (int k = 0; k < 25; k++) kernel[k] = w[kConv1 + (o * 5 + k / 5) * kFan1 + k % 5 * 3 + c];
                for (int y = 0; y < 5; y++) transform_kernel(kernel + y * 5, 1, half + y * 6, 1);
                for (int k = 0; k < 6; k++) transform_kernel(half + k, 6, whole + k, 6);
                for (int s = 0; s < 36; s++)
                    forward[kKernels1 + ((s / 6 * kOut1 + o) * 6 + s % 6) * 3 + c] = static_cast<float>(whole[s]);
            }
    }
    void publish_conv2(int begin, int end) {
        for (int o = begin; o < end; o++)
            for (int ky = 0; ky < 5; ky++)
                for (int t = 0; t < 30; t++) {
                    const float x = w[kConv2 + (o * 5 + ky) * kFan2 + t];
                    forward[kTapsOuts2 + (ky * 30 + t) * kOut2 + o] = x;
                    float* s = shifted + o * kShiftOut + (1 + ky) * kShiftRow + t;
                    s[0] = x;
                    s[kOut2 * kShiftOut + kOut1] = x;
                }
    }
    template <class D, class Back>
    void publish_dense(int offset, int to, int jb, int begin, int end) {
        const int outputs = std::min(D::outputs - jb * D::block, D::block);
        for (int i = begin; i < end; i++) {
            const float* from = w + offset + (jb * (D::inputs + 1) + i) * D::block;
            float* at = back + to + Back::at(jb * D::block, i, D::outputs);
            for (int j = 0; j < outputs; j++) at[j * Back::block] = from[j];
        }
    }

    void convolve1(int x) {  // vector x of windows
        const size_t stride = static_cast<size_t>(ImageSet::vectors(N)) * L;
        conv1_forward(set_.patches + static_cast<size_t>(x) * kPatch * L, forward + kKernels1, w + kBias1,
                      a1 + static_cast<size_t>(x) * L * kOut1, arg1 + static_cast<size_t>(x) * L, stride);
    }
    void convolve2(int n) {
        conv2_forward(a1 + static_cast<size_t>(n) * kActs1, forward + kTapsOuts2, w + kBias2,
                      a2 + static_cast<size_t>(row[n]) * kRow2, arg2 + static_cast<size_t>(row[n]) * kActs2);
    }

    // Dense layers, loss, and their input gradients where rows are training images.
    void classify(int begin, int end, Lap& lap) {
        const auto rectify = [](V sum, int, int) { return relu(sum); };
        const auto keep = [](V sum, int, int) { return sum; };
        dense<Fc1>(a2, kRow2, w + kFc1, 401, h3, begin, end, rectify);
        dense<Fc2>(h3, Fc1::row, w + kFc2, 121, h4, begin, end, rectify);
        dense<Fc3>(h4, Fc2::row, w + kFc3, 85, h5, begin, end, keep);
        for (int r = begin; r < end; r += L) {
            const int lanes = std::min(L, end - r);
            V logits[2] = {}, gradient[2], positive = {};
            for (int l = 0; l < lanes; l++)
                logits[0][l] = h5[(r + l) * Fc3::row], logits[1][l] = h5[(r + l) * Fc3::row + 1],
                positive[l] = label[r + l];
            const V losses = loss_and_gradient(logits, positive != 0.0f, splat(1.0f / static_cast<float>(T)), gradient);
            for (int l = 0; l < lanes; l++) {
                loss[r + l] = losses[l];
                d5[(r + l) * Fc3::row] = gradient[0][l], d5[(r + l) * Fc3::row + 1] = gradient[1][l];
            }
        }
        const int end_train = std::min(end, T);
        if (begin < end_train) {
            const auto behind = [](const float* h, int h_row) {
                return [=](V sum, int n, int i) {
                    return load(h + static_cast<size_t>(n) * h_row + i) <= 0.0f ? V{} : sum;
                };
            };
            dense<Fc3Back>(d5, Fc3::row, back + kBack3, 2, d4, begin, end_train, behind(h4, Fc2::row));
            dense<Fc2Back>(d4, Fc2::row, back + kBack2, 84, d3, begin, end_train, behind(h3, Fc1::row));
            if (!call_.frozen)
                dense<Fc1Back>(d3, Fc1::row, back + kBack1, 120, d2, begin, end_train, behind(a2, kRow2));
        }
        lap(2);
    }

    void write_loss(int t) {
        float sum = 0;
        for (int r = T; r < N; r++) sum += loss[r];
        call_.curves[b_ * call_.steps + t - 1] = canonical(sum / static_cast<float>(N - T));  // NaN where N = T
    }
    void write_weights() {
        const Layout& layout = Layout::get();
        for (int flat = 0; flat < kParameters; flat++)
            call_.trained[b_ * kParameters + flat] = canonical(w[layout.place[flat]]);
    }

    void backward_to_conv1(int begin, int end) {
        float buffer[kActs1 + kShiftRow];
        for (int r = begin; r < end; r++) {
            conv2_input_gradient(d2 + static_cast<size_t>(r) * 400, arg2 + static_cast<size_t>(r) * kActs2, shifted,
                                 buffer);
            const float* a = a1 + static_cast<size_t>(order[r]) * kActs1;
            float* d = d1 + static_cast<size_t>(r) * kActs1;
            for (int i = 0; i < kActs1; i++) d[i] = a[i] <= 0.0f ? 0.0f : buffer[i];
        }
    }

    // Gradients of weights, each over all training images in order, and their updates.
    void update(const Adam& adam, const Team& team, int rank, Lap& lap) {
        const auto share = [&](int count, int i) { return count * i / team.size; };
        if (call_.frozen) return update_dense_layers(adam, team, rank, lap);
        const int b1 = share(kOut1, team.size - 1 - rank), e1 = share(kOut1, team.size - rank);
        conv1_clear(b1, e1);
        for (int r = 0; r < T && b1 < e1; r++) conv1_add(r, b1, e1);
        conv1_update(adam, b1, e1);
        lap(4);
        update_after_conv1(adam, team, rank, lap);
    }
    void update_after_conv1(const Adam& adam, const Team& team, int rank, Lap& lap) {
        const auto share = [&](int count, int i) { return count * i / team.size; };
        const int b2 = share(kOut2, rank), e2 = share(kOut2, rank + 1);
        if (b2 < e2) {
            conv2_update(adam, b2, e2);
            publish_conv2(b2, e2);
        }
        lap(5);
        update_dense_layers(adam, team, rank, lap);
    }
    void update_dense_layers(const Adam& adam, const Team& team, int rank, Lap& lap) {
        update_dense<Fc1, Fc1Back>(adam, a2, kRow2, d3, kFc1, kBack1, team, rank);
        update_dense<Fc2, Fc2Back>(adam, h3, Fc1::row, d4, kFc2, kBack2, team, rank);
        update_dense<Fc3, Fc3Back>(adam, h4, Fc2::row, d5, kFc3, kBack3, team, rank);
        lap(6);
    }

    template <class D, class Back>
    void update_dense(const Adam& adam, const float* in, int in_row, const float* delta, int offset, int to,
                      const Team& team, int rank) {
        const int begin = (D::inputs + 1) * rank / team.size, end = (D::inputs + 1) * (rank + 1) / team.size;
        for (int jb = 0; jb < D::blocks; jb++) {
            dense_update<D>(in, in_row, delta, T, jb, begin, end, adam, w + offset, m + offset, v + offset);
            publish_dense<D, Back>(offset, to, jb, begin, std::min(end, D::inputs));
        }
    }

    static constexpr int kOuts1 = L == 16 ? 6 : 1, kParts1 = kFan1 / L, kParts2 = kFan2 / L;

    void conv1_clear(int begin, int end) {
        for (int o = begin; o < end; o++) {
            std::memset(static_cast<void*>(gradient1 + o), 0, sizeof gradient1[o]);
            gradient_bias1[o] = 0;
        }
    }
    void conv1_add(int r, int begin, int end) {
        int o = begin;
        for (; o + kOuts1 <= end; o += kOuts1) conv1_gradient<kOuts1>(r, o);
        for (; o < end; o++) conv1_gradient<1>(r, o);
    }
    void conv1_update(const Adam& adam, int begin, int end) {
        for (int o = begin; o < end; o++) {
            for (int ky = 0; ky < 5; ky++)
                for (int i = 0; i < kParts1; i++) {
                    const int at = kConv1 + (o * 5 + ky) * kFan1 + i * L;
                    adam_in_place(adam, gradient1[o][ky][i], w + at, m + at, v + at);
                }
            one(adam, kBias1 + o, gradient_bias1[o]);
        }
    }
    template <int outs>
    INLINE void conv1_gradient(int r, int o) {
        const size_t stride = static_cast<size_t>(ImageSet::vectors(N)) * L;
        const float* x = set_.tap_rows + static_cast<size_t>(order[r]) * kTapRows;
        const float* d = d1 + static_cast<size_t>(r) * kActs1 + o;
        const uint8_t* arg = arg1 + o * stride + static_cast<size_t>(order[r]) * kWindows1;
        V c[outs][5][kParts1];
        float b[outs];
        std::memcpy(static_cast<void*>(c), gradient1 + o, sizeof c);
        std::memcpy(b, gradient_bias1 + o, sizeof b);
        for (int wy = 0; wy < kSide1; wy++, x += 2 * 28 * kFan1)
            for (int wx = 0; wx < kSide1; wx++, d += kOut1, arg++)
                UNROLL for (int k = 0; k < outs; k++) {
                    const int top = arg[k * stride];
                    const float* taps = x + ((top >> 1) * 28 + 2 * wx + (top & 1)) * kFan1;
                    const V dv = splat(d[k]);
                    b[k] += d[k];
                    UNROLL for (int ky = 0; ky < 5; ky++)
                        UNROLL for (int i = 0; i < kParts1; i++)
                            c[k][ky][i] = fma(dv, load(taps + ky * 28 * kFan1 + i * L), c[k][ky][i]);
                }
        std::memcpy(static_cast<void*>(gradient1 + o), c, sizeof c);
        std::memcpy(gradient_bias1 + o, b, sizeof b);
    }

    void conv2_update(const Adam& adam, int begin, int end) {
        V g[kOut2][5][kParts2];
        float bias[kOut2] = {};
        std::memset(static_cast<void*>(g), 0, sizeof g);
        alignas(64) float rows[14 * 10 * kFan2];  // this image's rows of taps, aligned
        for (int r = 0; r < T; r++) {
            const float* a = a1 + static_cast<size_t>(order[r]) * kActs1;
            for (int y = 0; y < 14; y++)
                for (int x = 0; x < 10; x++)
                    UNROLL for (int i = 0; i < kParts2; i++)
                        store(rows + (y * 10 + x) * kFan2 + i * L, load(a + y * kRow1 + x * kOut1 + i * L));
            for (int o = begin; o < end; o++) {
                V c[5][kParts2];
                float b = bias[o];
                std::memcpy(static_cast<void*>(c), g[o], sizeof c);
                for (int window = 0; window < kWindows2; window++) {
                    const float d = d2[static_cast<size_t>(r) * 400 + window * kOut2 + o];
                    const int top = arg2[static_cast<size_t>(r) * kActs2 + window * kOut2 + o];
                    const float* taps =
                        rows + ((window / kSide2 * 2 + (top >> 1)) * 10 + window % kSide2 * 2 + (top & 1)) * kFan2;
                    const V dv = splat(d);
                    b += d;
                    UNROLL for (int ky = 0; ky < 5; ky++)
                        UNROLL for (int i = 0; i < kParts2; i++)
                            c[ky][i] = fma(dv, load(taps + ky * 10 * kFan2 + i * L), c[ky][i]);
                }
                bias[o] = b;
                std::memcpy(static_cast<void*>(g[o]), c, sizeof c);
            }
        }
        for (int o = begin; o < end; o++) {
            for (int ky = 0; ky < 5; ky++)
                for (int i = 0; i < kParts2; i++) {
                    const int at = kConv2 + (o * 5 + ky) * kFan2 + i * L;
                    adam_in_place(adam, g[o][ky][i], w + at, m + at, v + at);
                }
            one(adam, kBias2 + o, bias[o]);
        }
    }

    void one(const Adam& adam, int at, float gradient) {
        V wv = splat(w[at]), mv = splat(m[at]), vv = splat(v[at]);
        adam.update(splat(gradient), wv, mv, vv);
        w[at] = wv[0], m[at] = mv[0], v[at] = vv[0];
    }

    const Call& call_;
    const int64_t b_;
    const int N;  // images
    int T = 0;    // of these, training images
    const ImageSet& set_;
    std::vector<int> order, row;  // image of a row, row of an image
    bool stop_ = false;
    V gradient1[kOut1][5][kFan1 / L];
    float gradient_bias1[kOut1];
    float *w, *m, *v, *back, *forward, *shifted;
    float *a1, *d1, *a2, *d2, *h3, *d3, *h4, *d4, *h5, *d5, *loss, *label;
    uint8_t *arg1, *arg2;
};

// -------------------------------------------------------------------------------------------------- work list

constexpr int kAbreast = 4;      // networks per thread, see Training::run_abreast
constexpr int kFewImages = 100;  // below this number images fit into the caches, and one network at a time is faster
constexpr int kTeam = 12;        // more threads than this find too little to share

// An image set while trainings use it: the first one prepares it, the last one frees it.
class SharedSet {
public:
    const ImageSet& get(const float* images, int n) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!set_) set_ = std::make_unique<ImageSet>(images, n);
        return *set_;
    }
    void done() {
        if (--users == 0) {
            const std::lock_guard<std::mutex> lock(mutex_);
            set_.reset();
        }
    }
    std::atomic<int64_t> users{0};

private:
    std::mutex mutex_;
    std::unique_ptr<ImageSet> set_;
};

// Runs body(0) .. body(count - 1), each on its own thread (the first on this one); fewer if the system has no more
// threads. After all have ended, the first exception is rethrown.
template <class Body>
int in_parallel(int count, Body body) {
    std::atomic<bool> failed{false};
    const auto guarded = [&](int i) {
        try {
            body(i);
        } catch (...) {
            failed = true;
        }
    };
    std::vector<std::thread> others;
    others.reserve(count);
    for (int i = 1; i < count; i++) {
        try {
            others.emplace_back(guarded, i);
        } catch (const std::system_error&) {
            break;
        }
    }
    guarded(0);
    for (auto& thread : others) thread.join();
    return failed ? -1 : 0;
}

// Trains b with `size` threads.
void train(const Call& call, int64_t b, const ImageSet& set, int size, Workspace& space) {
    space.clear();
    Training training(call, b, set, space);
    Team team(size);
    std::vector<std::thread> others;
    others.reserve(size);
    std::atomic<int> go{0};  // a team starts only when it is complete
    try {
        for (int rank = 1; rank < size; rank++)
            others.emplace_back([&, rank] {
                while (go.load(std::memory_order_acquire) == 0) std::this_thread::yield();
                if (go.load(std::memory_order_acquire) > 0) training.run(team, rank);
            });
        go.store(1, std::memory_order_release);
        training.run(team, 0);
    } catch (const std::system_error&) {  // the system has no more threads: work alone
        go.store(-1, std::memory_order_release);
        Team alone(1);
        training.run(alone, 0);
    }
    for (auto& thread : others) thread.join();
}

void train_all(const Call& call, int64_t batch, int threads) {
    // Image set by image set, so that few sets are held at a time.
    std::vector<int64_t> list(batch);
    int64_t n_sets = 0;
    for (int64_t b = 0; b < batch; b++) list[b] = b, n_sets = std::max(n_sets, call.image_set[b] + 1);
    std::stable_sort(list.begin(), list.end(),
                     [&](int64_t a, int64_t b) { return call.image_set[a] < call.image_set[b]; });
    std::vector<SharedSet> sets(n_sets);
    for (int64_t b = 0; b < batch; b++) sets[call.image_set[b]].users++;

    // First pieces of several trainings, then single ones; the last, fewer than threads, are shared by teams.
    const int most = call.n_images < kFewImages ? 1 : kAbreast;
    const int abreast = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(most, batch / threads)));
    const int64_t in_pieces = batch / (threads * abreast) * abreast * threads;
    const int64_t alone = batch / threads * threads;
    const int workers = static_cast<int>(std::min<int64_t>(threads, batch));
    std::atomic<int64_t> next_piece{0}, next{in_pieces};
    const auto set_of = [&](int64_t i) { return call.image_set[list[i]]; };
    const auto image_set = [&](int64_t s) -> const ImageSet& {
        return sets[s].get(call.images + s * call.n_images * kPixels, call.n_images);
    };
    const int failed = in_parallel(workers, [&](int) {
        std::vector<std::unique_ptr<Workspace>> spaces;
        for (int k = 0; k < abreast; k++) spaces.push_back(std::make_unique<Workspace>(Training::bytes(call.n_images)));
        for (int64_t i; !call.cancelled() && (i = abreast * next_piece++) < in_pieces;)
            for (int64_t from = i, to; from < i + abreast; from = to) {
                std::vector<std::unique_ptr<Training>> members;
                std::vector<Training*> pointers;
                const ImageSet& set = image_set(set_of(from));
                for (to = from; to < i + abreast && set_of(to) == set_of(from); to++) {
                    Workspace& space = *spaces[to - from];
                    space.clear();
                    members.push_back(std::make_unique<Training>(call, list[to], set, space));
                    pointers.push_back(members.back().get());
                }
                Training::run_abreast(pointers.data(), static_cast<int>(pointers.size()));
                for (int64_t k = from; k < to; k++) sets[set_of(from)].done();
            }
        for (int64_t i; !call.cancelled() && (i = next++) < batch;) {
            int size = 1;
            if (i >= alone) {
                const int left = static_cast<int>(batch - alone), k = static_cast<int>(i - alone);
                size = std::min(threads / left + (k < threads % left), kTeam);
            }
            train(call, list[i], image_set(set_of(i)), size, *spaces[0]);
            sets[set_of(i)].done();
        }
    });
    if (failed) throw std::bad_alloc();
}

}  // namespace

// ------------------------------------------------------------------------------------------------------ C API

#define EXPORT __attribute__((visibility("default")))

extern "C" {

EXPORT int lanes_width() { return L; }

// The best instruction set of this processor among those we compile for: 2 AVX-512, 1 AVX2, 0 the platform's baseline.
EXPORT int lanes_best_isa() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return 2;
    return avx2 ? 1 : 0;
#else
    return 0;
#endif
}

// (61326,) initial weights in PyTorch's flat order.
EXPORT void lanes_initial_weights(uint64_t seed, float* out) {
    draw_weights(seed, [&](int flat, float value) { out[flat] = value; });
}

// Curves of `batch` trainings, and their last weights if `trained` is not null. They start from `initial`, or from
// `seeds` if that is null; where `frozen` is not 0, the convolutions keep these weights. Returns 0 when done, 1 when cancelled, 2 when out of memory. The caller checks arguments.
EXPORT int lanes_train(const float* images, int n_images, const uint8_t* labels, const uint8_t* train,
                       const uint64_t* seeds, const float* initial, const int64_t* image_set, int64_t batch, int steps,
                       double lr, int frozen, int threads, const int32_t* cancel, float* curves, float* trained) {
    static_assert(sizeof(std::atomic<int32_t>) == sizeof(int32_t), "the flag is a plain word to the caller");
    const Call call{images,
                    n_images,
                    labels,
                    train,
                    seeds,
                    initial,
                    image_set,
                    steps,
                    lr,
                    reinterpret_cast<const std::atomic<int32_t>*>(cancel),
                    curves,
                    trained,
                    frozen != 0};
    try {
        train_all(call, batch, threads);
    } catch (const std::bad_alloc&) {
        return 2;
    }
    return call.cancelled() ? 1 : 0;
}

// GFLOP/s of register-only fused multiply-adds (multiply then add where the processor has none) on that many threads.
EXPORT double lanes_peak_gflops(int threads, double seconds) {
    std::vector<double> rates(threads, 0.0);
    in_parallel(threads, [&](int i) {
        constexpr int chains = kRegisters == 32 ? 16 : 12;
        V c[chains];
        for (int k = 0; k < chains; k++) c[k] = splat(static_cast<float>(k));
        V a = splat(0.999f), b = splat(0.001f);
        const auto start = std::chrono::steady_clock::now();
        double elapsed = 0, flops = 0;
        while (elapsed < seconds) {
            for (int repeat = 0; repeat < 20000; repeat++) {
                UNROLL for (int k = 0; k < chains; k++) c[k] = fma(c[k], a, b);
            }
            flops += 20000.0 * chains * L * 2;
            elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        }
        V sum = {};
        for (int k = 0; k < chains; k++) sum += c[k];
        volatile float sink = sum[0];
        (void)sink;
        rates[i] = flops / elapsed / 1e9;
    });
    double total = 0;
    for (double rate : rates) total += rate;
    return total;
}

#if defined(LANES_PROFILE)
EXPORT const double* lanes_laps() { return g_laps; }
#endif
}
