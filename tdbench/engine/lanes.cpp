// The native CPU kernel: many 61,326-parameter networks trained side by side, one per SIMD lane.
//
// Two ways to run the same arithmetic:
//   group - the L lanes of a vector are L trainings that share their images. A pixel is one broadcast, every
//           weight, activation and gradient is a vector of L models, so each layer is dense register-blocked FMA
//           work, whatever its shape. One thread trains one group.
//   solo  - the lanes are L images of one training (weights are broadcast); a team of threads shares the images.
//           Used where there are too few trainings to fill the lanes or the cores.
//
// Batch-invariance: every scalar of a training goes through the same sequence of rounded operations in both ways
// and for any team size. Sums over images are always taken image by image, in order; a team splits sums over
// images by the weight they belong to, never by image. The compiler must not contract or reorder
// (-ffp-contract=off, no fast-math): `fma` below is the only fused operation.
//
// The file is compiled once per instruction set; lanes per vector and register blocking follow from it.
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <system_error>
#include <thread>
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
typedef int32_t I __attribute__((vector_size(L * 4)));      // comparison masks and indices
typedef uint8_t Bytes __attribute__((vector_size(L)));      // indices at rest
typedef float Unaligned __attribute__((vector_size(L * 4), aligned(4), may_alias));

#define INLINE inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

INLINE V splat(float x) {
    V v;
    UNROLL for (int l = 0; l < L; l++) v[l] = x;
    return v;
}
INLINE I splat_int(int32_t x) { return I{} + x; }

// A weight or a pixel is either one number for all lanes or one number for each.
INLINE V load(const float& x) { return splat(x); }
INLINE V load(const V& x) { return x; }
INLINE V load_unaligned(const float* p) { return *reinterpret_cast<const Unaligned*>(p); }
INLINE void store_unaligned(float* p, V v) { *reinterpret_cast<Unaligned*>(p) = v; }

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

// Per lane one of four consecutive floats. `selector` turns an index 0..3 into what `select` wants.
INLINE I selector(I index) {
#if defined(__aarch64__)
    return index * 0x04040404 + 0x03020100;  // four byte indices for the table lookup
#else
    return index;
#endif
}
INLINE V select(const float* quad, I which) {
#if defined(__AVX512F__)
    return (V)_mm512_permutevar_ps(_mm512_broadcast_f32x4(_mm_load_ps(quad)), (__m512i)which);
#elif defined(__AVX2__)
    return (V)_mm256_permutevar_ps(_mm256_broadcast_ps(reinterpret_cast<const __m128*>(quad)), (__m256i)which);
#elif defined(__aarch64__)
    return (V)vqtbl1q_u8((uint8x16_t)vld1q_f32(quad), (uint8x16_t)which);
#else
    const I right = (which & 1) != 0, lower = (which & 2) != 0;
    return lower ? (right ? splat(quad[3]) : splat(quad[2])) : (right ? splat(quad[1]) : splat(quad[0]));
#endif
}

// ------------------------------------------------------------------------------------------------- functions

INLINE V absolute(V x) { return (V)((I)x & 0x7fffffff); }

// NaN stays NaN: a diverged training must not look alive again.
INLINE V relu(V x) { return x <= 0.0f ? V{} : x; }

// exp(x) for x <= 0, within 2 ulp; 0 below -87 where float32 turns subnormal; NaN for NaN.
// Cody-Waite reduction by ln 2 and the Taylor polynomial of degree 7 on |r| <= ln(2) / 2.
INLINE V exp_nonpositive(V x) {
    const I tiny = x < -87.0f;
    const V clamped = tiny ? splat(-87.0f) : x;
    const V shifted = fma(clamped, splat(1.44269504f), splat(12582912.0f));  // 1.5 * 2^23: the integer part, in the low bits
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
constexpr int kTaps1 = 75, kOut1 = 6, kWindows1 = 14 * 14, kActs1 = kWindows1 * kOut1;
constexpr int kTaps2 = 150, kOut2 = 16, kWindows2 = 5 * 5, kActs2 = kWindows2 * kOut2;
constexpr int kPixels = 32 * 32 * 3, kRow0 = 32 * 3, kRow1 = 14 * kOut1;

// Weights, as elements of one array per training (solo) or group of trainings:
//   conv1 [tap][o], bias[o]    conv2 [o / 4][tap][o % 4], bias[o]
//   dense, J outputs in blocks of JB: [j / JB][i][j % JB], where i = I is the bias
struct Dense {
    int offset, inputs, outputs, block;
    constexpr int row() const { return (inputs + 1) * block; }
};
constexpr int kConv1 = 0, kConv2 = kConv1 + kTaps1 * kOut1 + kOut1;
constexpr Dense kFc1{kConv2 + kTaps2 * kOut2 + kOut2, 400, 120, 4};
constexpr Dense kFc2{kFc1.offset + 401 * 120, 120, 84, 4};
constexpr Dense kFc3{kFc2.offset + 121 * 84, 84, 2, 2};
constexpr int kParameters = kFc3.offset + 85 * 2;
static_assert(kParameters == 61326, "the network of SPEC section 3");

// Where PyTorch's flat parameter (tdbench/engine/network.py) lives in our array, and its bound 1/sqrt(fan_in).
struct Layout {
    std::vector<int> place;
    std::vector<float> bound;

    Layout() {
        for (int o = 0; o < 6; o++)
            for (int c = 0; c < 3; c++)
                for (int k = 0; k < 25; k++) add(kConv1 + (k * 3 + c) * 6 + o, 75);
        for (int o = 0; o < 6; o++) add(kConv1 + 450 + o, 75);
        for (int o = 0; o < 16; o++)
            for (int c = 0; c < 6; c++)
                for (int k = 0; k < 25; k++) add(kConv2 + ((o / 4) * kTaps2 + k * 6 + c) * 4 + o % 4, 150);
        for (int o = 0; o < 16; o++) add(kConv2 + 2400 + o, 150);
        // PyTorch flattens channel by channel, we position by position.
        dense(kFc1, [](int i) { return i % 25 * 16 + i / 25; });
        dense(kFc2, [](int i) { return i; });
        dense(kFc3, [](int i) { return i; });
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
    template <class Order>
    void dense(const Dense& d, Order order) {
        const auto at = [&](int i, int j) { return d.offset + j / d.block * d.row() + i * d.block + j % d.block; };
        for (int j = 0; j < d.outputs; j++)
            for (int i = 0; i < d.inputs; i++) add(at(order(i), j), d.inputs);
        for (int j = 0; j < d.outputs; j++) add(at(d.inputs, j), d.inputs);
    }
};

// Philox4x32-10 (Salmon et al., SC 2011) for L keys at once, as tdbench/rng.py defines it, stream WEIGHTS = 1.
// out(flat index, lane, value) receives weight i = word i % 4 of block i / 4, upper 24 bits mapped to [-1, 1) * bound.
template <class Out>
void draw_weights(const uint64_t* seeds, int count, Out out) {
    const Layout& layout = Layout::get();
    for (int block = 0; block * 4 < kParameters; block++) {
        uint32_t c[4][L], k[2][L];
        for (int l = 0; l < L; l++) {
            const uint64_t seed = seeds[l < count ? l : 0];
            c[0][l] = static_cast<uint32_t>(block), c[1][l] = 0, c[2][l] = 1, c[3][l] = 0;
            k[0][l] = static_cast<uint32_t>(seed), k[1][l] = static_cast<uint32_t>(seed >> 32);
        }
        for (int round = 0; round < 10; round++)
            for (int l = 0; l < L; l++) {
                const uint64_t p0 = uint64_t{0xD2511F53} * c[0][l], p1 = uint64_t{0xCD9E8D57} * c[2][l];
                c[0][l] = static_cast<uint32_t>(p1 >> 32) ^ c[1][l] ^ k[0][l];
                c[2][l] = static_cast<uint32_t>(p0 >> 32) ^ c[3][l] ^ k[1][l];
                c[1][l] = static_cast<uint32_t>(p1), c[3][l] = static_cast<uint32_t>(p0);
                k[0][l] += 0x9E3779B9, k[1][l] += 0xBB67AE85;
            }
        for (int word = 0; word < 4 && block * 4 + word < kParameters; word++) {
            const int flat = block * 4 + word;
            for (int l = 0; l < count; l++) {
                const float unit = static_cast<float>(static_cast<int32_t>(c[word][l] >> 8)) * 0x1p-23f - 1.0f;
                out(flat, l, unit * layout.bound[flat]);
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------- forward layers

// Max over a 2x2 window, then ReLU. Like PyTorch the first maximum wins and NaN is kept.
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

// One image (or L images): 2x2 outputs of all channels are accumulated in registers, then pooled.
// Channels of `block` go together; a wider block does more arithmetic per load but needs the registers.
template <class X, class W>
void conv1_forward(const X* x, const W* w, V* a, Bytes* arg) {
    constexpr int block = kRegisters == 32 ? 6 : 3;
    for (int wy = 0; wy < 14; wy++)
        for (int wx = 0; wx < 14; wx++)
            for (int ob = 0; ob < kOut1; ob += block) {
                V c[4][block];
                UNROLL for (int o = 0; o < block; o++) c[0][o] = c[1][o] = c[2][o] = c[3][o] = load(w[450 + ob + o]);
                for (int ky = 0; ky < 5; ky++) {
                    const X* top = x + (2 * wy + ky) * kRow0 + 2 * wx * 3;
                    const X* bottom = top + kRow0;
                    const W* wk = w + ky * 15 * kOut1 + ob;
                    for (int t = 0; t < 15; t++) {
                        const V x0 = load(top[t]), x1 = load(top[t + 3]), x2 = load(bottom[t]), x3 = load(bottom[t + 3]);
                        UNROLL for (int o = 0; o < block; o++) {
                            const V q = load(wk[t * kOut1 + o]);
                            c[0][o] = fma(x0, q, c[0][o]);
                            c[1][o] = fma(x1, q, c[1][o]);
                            c[2][o] = fma(x2, q, c[2][o]);
                            c[3][o] = fma(x3, q, c[3][o]);
                        }
                    }
                }
                const int at = (wy * 14 + wx) * kOut1 + ob;
                UNROLL for (int o = 0; o < block; o++) pool_relu(c[0][o], c[1][o], c[2][o], c[3][o], a[at + o], arg[at + o]);
            }
}

// Dense layers read and write activations as [feature / 4][image][feature % 4] (`stride` images): both a register
// tile of the forward pass and one of the weight gradient are then contiguous. `a2` points at this image.
template <class W>
void conv2_forward(const V* a1, const W* w, V* a2, int stride, Bytes* arg) {
    constexpr int block = kRegisters == 32 ? 4 : 2;
    for (int ob = 0; ob < kOut2; ob += block)
        for (int wy = 0; wy < 5; wy++)
            for (int wx = 0; wx < 5; wx++) {
                const W* wo = w + ob / 4 * kTaps2 * 4 + ob % 4;
                V c[4][block];
                UNROLL for (int o = 0; o < block; o++) c[0][o] = c[1][o] = c[2][o] = c[3][o] = load(w[2400 + ob + o]);
                for (int ky = 0; ky < 5; ky++) {
                    const V* top = a1 + (2 * wy + ky) * kRow1 + 2 * wx * kOut1;
                    const V* bottom = top + kRow1;
                    const W* wk = wo + ky * 30 * 4;
                    _Pragma("GCC unroll 2") for (int t = 0; t < 30; t++) {
                        const V x0 = top[t], x1 = top[t + 6], x2 = bottom[t], x3 = bottom[t + 6];
                        UNROLL for (int o = 0; o < block; o++) {
                            const V q = load(wk[t * 4 + o]);
                            c[0][o] = fma(x0, q, c[0][o]);
                            c[1][o] = fma(x1, q, c[1][o]);
                            c[2][o] = fma(x2, q, c[2][o]);
                            c[3][o] = fma(x3, q, c[3][o]);
                        }
                    }
                }
                const int window = wy * 5 + wx;
                V* out = a2 + (window * 4 + ob / 4) * stride * 4 + ob % 4;
                UNROLL for (int o = 0; o < block; o++)
                    pool_relu(c[0][o], c[1][o], c[2][o], c[3][o], out[o], arg[window * kOut2 + ob + o]);
            }
}

// Images per register tile of a dense layer; ranges are cut into nearly equal tiles of at most this many.
constexpr int kTile = kRegisters == 32 ? 6 : 3;
constexpr int kChunk = 10;  // blocks of the summed dimension per pass, so that a tile of activations stays in L1

template <class Body>
INLINE void tiles(int begin, int end, Body body) {
    const int pieces = (end - begin + kTile - 1) / kTile;
    for (int p = 0; p < pieces; p++) {
        const int from = begin + (end - begin) * p / pieces, to = begin + (end - begin) * (p + 1) / pieces;
        switch (to - from) {
            case 1: body(from, std::integral_constant<int, 1>{}); break;
            case 2: body(from, std::integral_constant<int, 2>{}); break;
            case 3: body(from, std::integral_constant<int, 3>{}); break;
#if !defined(__AVX2__) || defined(__AVX512F__)
            case 4: body(from, std::integral_constant<int, 4>{}); break;
            case 5: body(from, std::integral_constant<int, 5>{}); break;
            case 6: body(from, std::integral_constant<int, 6>{}); break;
#endif
        }
    }
}

// out[j][n] = bias[j] + sum_i in[i][n] w[i][j], then ReLU, for images begin..end.
template <int JB, class W>
void dense_forward(const Dense& d, const V* in, const W* weights, V* out, int stride, int begin, int end, bool rectify) {
    const W* base = weights + d.offset;
    const int in_blocks = d.inputs / 4, out_blocks = d.outputs / JB;
    for (int chunk = 0; chunk < in_blocks; chunk += kChunk) {
        const int chunk_end = chunk + kChunk < in_blocks ? chunk + kChunk : in_blocks;
        tiles(begin, end, [&](int n, auto size) {
            constexpr int NB = decltype(size)::value;
            for (int jb = 0; jb < out_blocks; jb++) {
                const W* w = base + static_cast<size_t>(jb) * d.row();
                V* o = out + (static_cast<size_t>(jb) * stride + n) * JB;
                V c[NB][JB];
                UNROLL for (int a = 0; a < NB; a++)
                    UNROLL for (int b = 0; b < JB; b++) c[a][b] = chunk == 0 ? load(w[d.inputs * JB + b]) : o[a * JB + b];
                for (int ib = chunk; ib < chunk_end; ib++) {
                    const V* x = in + (static_cast<size_t>(ib) * stride + n) * 4;
                    const W* wi = w + ib * 4 * JB;
                    UNROLL for (int i = 0; i < 4; i++) {
                        V q[JB];
                        UNROLL for (int b = 0; b < JB; b++) q[b] = load(wi[i * JB + b]);
                        UNROLL for (int a = 0; a < NB; a++) {
                            const V v = x[a * 4 + i];
                            UNROLL for (int b = 0; b < JB; b++) c[a][b] = fma(v, q[b], c[a][b]);
                        }
                    }
                }
                const bool last = chunk_end == in_blocks && rectify;
                UNROLL for (int a = 0; a < NB; a++)
                    UNROLL for (int b = 0; b < JB; b++) o[a * JB + b] = last ? relu(c[a][b]) : c[a][b];
            }
        });
    }
}

// Cross-entropy of two logits and its gradient. `label` and `train` are lane masks, `scale` is 1 / (size of train side).
INLINE V loss_and_gradient(const V* logits, I label, I train, V scale, V* gradient) {
    const V difference = label ? logits[0] - logits[1] : logits[1] - logits[0];  // wrong minus right
    const V e = exp_nonpositive(-absolute(difference));
    const V positive = difference <= 0.0f ? V{} : difference;
    const V wrong = (difference <= 0.0f ? e : splat(1.0f)) / (e + 1.0f);  // probability of the wrong class
    const V g = train ? wrong * scale : V{};
    gradient[0] = label ? g : -g;
    gradient[1] = label ? -g : g;
    return positive + log_one_plus(e);
}

// --------------------------------------------------------------------------------------------- backward layers

// d_in[i][n] = sum_j d_out[j][n] w[i][j] where the ReLU before was open.
template <int JB, class W>
void dense_input_gradient(const Dense& d, const V* d_out, const W* weights, const V* in, V* d_in, int stride, int begin,
                          int end) {
    const W* base = weights + d.offset;
    const int in_blocks = d.inputs / 4, out_blocks = d.outputs / JB;
    for (int chunk = 0; chunk < out_blocks; chunk += kChunk) {
        const int chunk_end = chunk + kChunk < out_blocks ? chunk + kChunk : out_blocks;
        tiles(begin, end, [&](int n, auto size) {
            constexpr int NB = decltype(size)::value;
            for (int ib = 0; ib < in_blocks; ib++) {
                const size_t at = (static_cast<size_t>(ib) * stride + n) * 4;
                V c[NB][4];
                UNROLL for (int a = 0; a < NB; a++)
                    UNROLL for (int i = 0; i < 4; i++) c[a][i] = chunk == 0 ? V{} : d_in[at + a * 4 + i];
                for (int jb = chunk; jb < chunk_end; jb++) {
                    const V* delta = d_out + (static_cast<size_t>(jb) * stride + n) * JB;
                    const W* w = base + static_cast<size_t>(jb) * d.row() + ib * 4 * JB;
                    UNROLL for (int b = 0; b < JB; b++) {
                        V q[4];
                        UNROLL for (int i = 0; i < 4; i++) q[i] = load(w[i * JB + b]);
                        UNROLL for (int a = 0; a < NB; a++) {
                            const V v = delta[a * JB + b];
                            UNROLL for (int i = 0; i < 4; i++) c[a][i] = fma(v, q[i], c[a][i]);
                        }
                    }
                }
                UNROLL for (int a = 0; a < NB; a++)
                    UNROLL for (int i = 0; i < 4; i++)
                        d_in[at + a * 4 + i] = chunk_end == out_blocks && 1 ? (in[at + a * 4 + i] <= 0.0f ? V{} : c[a][i]) : c[a][i];
            }
        });
    }
}

// The gradient behind the second pooling, spread over the 10x10 positions before it: [y][1 + x][o], with a column of
// zeros on either side that conv2_input_gradient may touch.
constexpr int kSpread = 10 * 12 * kOut2;

INLINE void spread_windows(const V* d2, int stride, const Bytes* arg, V* spread) {
    for (int window = 0; window < kWindows2; window++)
        for (int o = 0; o < kOut2; o++) {
            const V d = d2[(window * 4 + o / 4) * stride * 4 + o % 4];
            const I index = __builtin_convertvector(arg[window * kOut2 + o], I);
            UNROLL for (int p = 0; p < 4; p++)
                spread[((window / 5 * 2 + p / 2) * 12 + 1 + window % 5 * 2 + p % 2) * kOut2 + o] = index == p ? d : V{};
        }
}

// d_a1[y][x][c] = sum d[y - ky][x - kx][o] w[ky][kx][c][o]. Outer loops over ky and half of the outputs keep the
// weights in L1; the sums of a pair of neighbours x, x + 1 are in registers.
template <class W>
void conv2_input_gradient(const V* spread, const W* w, V* d_a1) {
    for (int ky = 0; ky < 5; ky++)
        for (int half = 0; half < 2; half++)
            for (int y = ky; y < ky + 10; y++) {
                const bool first = half == 0 && (ky == 0 || y == ky + 9);
                for (int x = 0; x < 14; x += 2) {
                    const int kx_begin = x > 9 ? x - 9 : 0, kx_end = x + 1 < 4 ? x + 1 : 4;
                    V* out = d_a1 + (y * 14 + x) * kOut1;
                    V c0[kOut1], c1[kOut1];
                    UNROLL for (int c = 0; c < kOut1; c++) {
                        c0[c] = first ? V{} : out[c];
                        c1[c] = first ? V{} : out[kOut1 + c];
                    }
                    for (int kx = kx_begin; kx <= kx_end; kx++)
                        for (int ob = half * 2; ob < half * 2 + 2; ob++) {
                            const V* d = spread + ((y - ky) * 12 + 1 + x - kx) * kOut2 + ob * 4;
                            const W* wk = w + (ob * kTaps2 + ky * 30 + kx * 6) * 4;
                            UNROLL for (int o = 0; o < 4; o++) {
                                const V d0 = d[o], d1 = d[kOut2 + o];
                                UNROLL for (int c = 0; c < kOut1; c++) {
                                    const V q = load(wk[c * 4 + o]);
                                    c0[c] = fma(d0, q, c0[c]);
                                    c1[c] = fma(d1, q, c1[c]);
                                }
                            }
                        }
                    UNROLL for (int c = 0; c < kOut1; c++) out[c] = c0[c], out[kOut1 + c] = c1[c];
                }
            }
}

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

// ------------------------------------------------------------------------------------- gradients of a group

void group_conv2_weight_gradient(const V* a1, const V* spread, V* g) {
    constexpr int block = kRegisters == 32 ? 6 : 3;
    for (int wy = 0; wy < 5; wy++)
        for (int ky = 0; ky < 5; ky++)
            for (int ob = 0; ob < 4; ob++)
                for (int t = 0; t < 30; t += block) {
                    V* gt = g + (ob * kTaps2 + ky * 30 + t) * 4;
                    V c[block][4];
                    UNROLL for (int i = 0; i < block; i++) UNROLL for (int o = 0; o < 4; o++) c[i][o] = gt[i * 4 + o];
                    for (int wx = 0; wx < 5; wx++)
                        for (int p = 0; p < 4; p++) {
                            const int y = 2 * wy + p / 2, x = 2 * wx + p % 2;
                            const V* a = a1 + (y + ky) * kRow1 + x * kOut1 + t;
                            const V* d = spread + (y * 12 + 1 + x) * kOut2 + ob * 4;
                            UNROLL for (int i = 0; i < block; i++)
                                UNROLL for (int o = 0; o < 4; o++) c[i][o] = fma(a[i], d[o], c[i][o]);
                        }
                    UNROLL for (int i = 0; i < block; i++) UNROLL for (int o = 0; o < 4; o++) gt[i * 4 + o] = c[i][o];
                }
}

// Images with the four pixels of each 2x2 window side by side: [y][x][channel][4], 31x31 windows.
constexpr int kQuads = 31 * 31 * 3 * 4, kQuadRow = 31 * 3 * 4;

// Of a pooling window only the maximum passes a gradient on, and per lane another: select that pixel, then one FMA.
void group_conv1_weight_gradient(const float* quads, const V* a1, const V* d_a1, const Bytes* arg, V* g) {
    constexpr int taps = kRegisters == 32 ? 5 : 3, outs = kRegisters == 32 ? 3 : 2;
    for (int wy = 0; wy < 14; wy++) {
        V delta[kRow1];
        I which[kRow1];
        for (int i = 0; i < kRow1; i++) {
            const int at = wy * kRow1 + i;
            delta[i] = a1[at] <= 0.0f ? V{} : d_a1[at];
            which[i] = selector(__builtin_convertvector(arg[at], I));
        }
        for (int wx = 0; wx < 14; wx++)
            for (int o = 0; o < kOut1; o++) g[450 + o] += delta[wx * kOut1 + o];
        for (int ky = 0; ky < 5; ky++)
            for (int t = 0; t < 15; t += taps)
                for (int ob = 0; ob < kOut1; ob += outs) {
                    V* gt = g + (ky * 15 + t) * kOut1 + ob;
                    V c[taps][outs];
                    UNROLL for (int i = 0; i < taps; i++) UNROLL for (int o = 0; o < outs; o++) c[i][o] = gt[i * kOut1 + o];
                    const float* q = quads + (2 * wy + ky) * kQuadRow + t * 4;
                    for (int wx = 0; wx < 14; wx++)
                        UNROLL for (int o = 0; o < outs; o++) {
                            const V d = delta[wx * kOut1 + ob + o];
                            const I k = which[wx * kOut1 + ob + o];
                            UNROLL for (int i = 0; i < taps; i++) c[i][o] = fma(select(q + wx * 24 + i * 4, k), d, c[i][o]);
                        }
                    UNROLL for (int i = 0; i < taps; i++) UNROLL for (int o = 0; o < outs; o++) gt[i * kOut1 + o] = c[i][o];
                }
    }
}

// Weight gradient of a dense layer and its Adam update, a tile of 4 x JB weights at a time: the gradient never
// leaves the registers, and weights and moments pass through the caches once.
template <int JB>
void group_dense_update(const Dense& d, const V* in, const V* d_out, int n_images, const Adam& adam, V* w, V* m, V* v) {
    for (int ib = 0; ib <= d.inputs / 4; ib++)
        for (int jb = 0; jb < d.outputs / JB; jb++) {
            const V* delta = d_out + static_cast<size_t>(jb) * n_images * JB;
            const size_t at = d.offset + static_cast<size_t>(jb) * d.row() + ib * 4 * JB;
            if (ib == d.inputs / 4) {
                V c[JB] = {};
                for (int n = 0; n < n_images; n++)
                    UNROLL for (int b = 0; b < JB; b++) c[b] += delta[n * JB + b];
                UNROLL for (int b = 0; b < JB; b++) adam.update(c[b], w[at + b], m[at + b], v[at + b]);
                continue;
            }
            const V* x = in + static_cast<size_t>(ib) * n_images * 4;
            V c[4][JB] = {};
            for (int n = 0; n < n_images; n++) {
                UNROLL for (int i = 0; i < 4; i++)
                    UNROLL for (int b = 0; b < JB; b++) c[i][b] = fma(x[n * 4 + i], delta[n * JB + b], c[i][b]);
            }
            UNROLL for (int i = 0; i < 4; i++)
                UNROLL for (int b = 0; b < JB; b++) adam.update(c[i][b], w[at + i * JB + b], m[at + i * JB + b], v[at + i * JB + b]);
        }
}

// --------------------------------------------------------------------------------------------------- one call

struct Call {
    const float* images;      // (S, N, 3, 32, 32)
    int n_images;             // N
    const uint8_t* labels;    // (B, N)
    const uint8_t* train;     // (B, N)
    const uint64_t* seeds;    // (B,)
    const int64_t* image_set; // (B,)
    int steps;
    double lr;
    const std::atomic<int32_t>* cancel;
    float* curves;            // (B, steps)

    bool cancelled() const { return cancel->load(std::memory_order_relaxed) != 0; }
    int n_train(int64_t b) const {
        int n = 0;
        for (int i = 0; i < n_images; i++) n += train[b * n_images + i] != 0;
        return n;
    }
    const float* image(int64_t b, int n) const { return images + (image_set[b] * n_images + n) * kPixels; }
};

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

    template <class T>
    T* take(size_t count) {
        T* p = reinterpret_cast<T*>(memory_ + used_);
        used_ += round(count * sizeof(T), 64) + 64;  // the odd line keeps arrays from aliasing in the caches
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

// Channels innermost; 16 floats of slack, since solo gradients read whole vectors of taps.
void channels_last(const float* image, float* out) {
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < 1024; i++) out[i * 3 + c] = image[c * 1024 + i];
}

#if defined(LANES_PROFILE)
double g_laps[16];
struct Lap {
    std::chrono::steady_clock::time_point t = std::chrono::steady_clock::now();
    void operator()(int i) {
        const auto now = std::chrono::steady_clock::now();
        g_laps[i] += std::chrono::duration<double>(now - t).count();
        t = now;
    }
};
#else
struct Lap {
    void operator()(int) {}
};
#endif

float canonical(float loss) { return std::isnan(loss) ? std::numeric_limits<float>::quiet_NaN() : loss; }

// --------------------------------------------------------------------------------------------- group: L trainings

// Floats of workspace: 3 vectors per parameter, and per image the activations of L trainings and its pixels.
size_t group_bytes(int n) {
    const size_t per_image = (kActs1 + 2 * kActs2 + 2 * (120 + 84 + 2) + 2) * sizeof(V) + (kActs1 + kActs2) * sizeof(Bytes) +
                             (kPixels + kQuads) * sizeof(float);
    return 3 * kParameters * sizeof(V) + n * per_image + (kFc1.offset + kSpread + kActs1) * sizeof(V) + 65536;
}

// Trains trainings members[0..count), count <= L, all of one image set. Returns at once when cancelled.
void train_group(const Call& call, const int64_t* members, int count) {
    const int N = call.n_images;
    Workspace space(group_bytes(N));
    V* w = space.take<V>(kParameters);
    V* m = space.take_zeros<V>(kParameters);
    V* v = space.take_zeros<V>(kParameters);
    V* g = space.take<V>(kFc1.offset);
    V* a1 = space.take<V>(static_cast<size_t>(N) * kActs1);
    V* a2 = space.take<V>(static_cast<size_t>(N) * kActs2);
    V* d2 = space.take<V>(static_cast<size_t>(N) * kActs2);
    V *h3 = space.take<V>(N * 120), *d3 = space.take<V>(N * 120);
    V *h4 = space.take<V>(N * 84), *d4 = space.take<V>(N * 84);
    V *h5 = space.take<V>(N * 2), *d5 = space.take<V>(N * 2);
    I *label = space.take<I>(N), *train = space.take<I>(N);
    Bytes* arg1 = space.take<Bytes>(static_cast<size_t>(N) * kActs1);
    Bytes* arg2 = space.take<Bytes>(static_cast<size_t>(N) * kActs2);
    V* spread = space.take_zeros<V>(kSpread);
    V* d_a1 = space.take<V>(kActs1);
    float* pixels = space.take<float>(static_cast<size_t>(N) * kPixels);
    float* quads = space.take<float>(static_cast<size_t>(N) * kQuads);

    // Lanes without a training repeat the first one; their results go nowhere.
    uint64_t seeds[L];
    V scale, n_val;
    for (int l = 0; l < L; l++) {
        const int64_t b = members[l < count ? l : 0];
        const int n_train = call.n_train(b);
        seeds[l] = call.seeds[b];
        scale[l] = 1.0f / static_cast<float>(n_train);
        n_val[l] = static_cast<float>(N - n_train);
        for (int n = 0; n < N; n++) {
            label[n][l] = call.labels[b * N + n] ? -1 : 0;
            train[n][l] = call.train[b * N + n] ? -1 : 0;
        }
    }
    const Layout& layout = Layout::get();
    draw_weights(seeds, L, [&](int flat, int l, float value) { w[layout.place[flat]][l] = value; });
    for (int n = 0; n < N; n++) {
        float* x = pixels + static_cast<size_t>(n) * kPixels;
        float* q = quads + static_cast<size_t>(n) * kQuads;
        channels_last(call.image(members[0], n), x);
        for (int y = 0; y < 31; y++)
            for (int i = 0; i < 31 * 3; i++, q += 4) {
                const float* p = x + y * kRow0 + i;
                q[0] = p[0], q[1] = p[3], q[2] = p[kRow0], q[3] = p[kRow0 + 3];
            }
    }

    for (int t = 1; t <= call.steps && !call.cancelled(); t++) {
        Lap lap;
        for (int n = 0; n < N; n++) {
            V* a = a1 + static_cast<size_t>(n) * kActs1;
            conv1_forward(pixels + static_cast<size_t>(n) * kPixels, w + kConv1, a, arg1 + static_cast<size_t>(n) * kActs1);
            lap(0);
            conv2_forward(a, w + kConv2, a2 + n * 4, N, arg2 + static_cast<size_t>(n) * kActs2);
            lap(1);
        }
        dense_forward<4>(kFc1, a2, w, h3, N, 0, N, true);
        dense_forward<4>(kFc2, h3, w, h4, N, 0, N, true);
        dense_forward<2>(kFc3, h4, w, h5, N, 0, N, false);
        V sum = {};
        for (int n = 0; n < N; n++) {
            const V loss = loss_and_gradient(h5 + n * 2, label[n], train[n], scale, d5 + n * 2);
            sum += train[n] ? V{} : loss;
        }
        sum /= n_val;
        for (int l = 0; l < count; l++) call.curves[members[l] * call.steps + t - 1] = canonical(sum[l]);
        lap(2);
        if (t == call.steps) break;  // nobody sees the last update

        const Adam adam(call.lr, t);
        dense_input_gradient<2>(kFc3, d5, w, h4, d4, N, 0, N);
        dense_input_gradient<4>(kFc2, d4, w, h3, d3, N, 0, N);
        dense_input_gradient<4>(kFc1, d3, w, a2, d2, N, 0, N);
        lap(3);
        group_dense_update<2>(kFc3, h4, d5, N, adam, w, m, v);
        group_dense_update<4>(kFc2, h3, d4, N, adam, w, m, v);
        group_dense_update<4>(kFc1, a2, d3, N, adam, w, m, v);
        lap(4);
        std::memset(static_cast<void*>(g), 0, kFc1.offset * sizeof(V));
        for (int n = 0; n < N; n++) {
            const V* a = a1 + static_cast<size_t>(n) * kActs1;
            spread_windows(d2 + n * 4, N, arg2 + static_cast<size_t>(n) * kActs2, spread);
            for (int i = 0; i < kActs2; i++) g[kConv2 + 2400 + i % kOut2] += d2[(static_cast<size_t>(i / 4) * N + n) * 4 + i % 4];
            lap(5);
            group_conv2_weight_gradient(a, spread, g + kConv2);
            lap(6);
            conv2_input_gradient(spread, w + kConv2, d_a1);
            lap(7);
            group_conv1_weight_gradient(quads + static_cast<size_t>(n) * kQuads, a, d_a1,
                                        arg1 + static_cast<size_t>(n) * kActs1, g + kConv1);
            lap(8);
        }
        for (int i = 0; i < kFc1.offset; i++) adam.update(g[i], w[i], m[i], v[i]);
        lap(9);
    }
}

// ----------------------------------------------------------------------------------------- solo: one training

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

constexpr int kSlack = 16;                      // floats readable behind a row of taps
constexpr int kIn1 = kActs1 + kSlack;           // per image: activations in natural order
constexpr int padded(int n) { return (n + L - 1) / L * L; }

// Gradient of one output channel of a convolution of C channels: vectors along the taps of a kernel row, one row of
// taps per window and ky since only the maximum of a window passes a gradient on.
// `dense` adds the exact zeros of the other three as the group does, which matters where an activation is not finite.
template <int C, int side, int outs, int windows>
void solo_conv_gradient(const float* x, size_t image_stride, int row, const float* delta, size_t delta_stride,
                        const uint8_t* arg, int n_images, int o, bool dense, float* g /* [5][padded(5 * C)] */, float& bias) {
    constexpr int width = padded(5 * C), parts = width / L;
    V c[5][parts] = {};
    float b = 0;
    for (int n = 0; n < n_images; n++)
        for (int window = 0; window < windows; window++) {
            const float d = delta[n * delta_stride + window * outs + o];
            const int top = arg[n * delta_stride + window * outs + o];
            const float* base = x + n * image_stride + (window / side) * 2 * row + (window % side) * 2 * C;
            b += d;
            for (int p = dense ? 0 : top; p <= (dense ? 3 : top); p++) {
                const float* from = base + p / 2 * row + p % 2 * C;
                const V dv = splat(p == top ? d : 0.0f);
                UNROLL for (int ky = 0; ky < 5; ky++)
                    UNROLL for (int i = 0; i < parts; i++) c[ky][i] = fma(load_unaligned(from + ky * row + i * L), dv, c[ky][i]);
            }
        }
    for (int ky = 0; ky < 5; ky++)
        for (int i = 0; i < parts; i++) store_unaligned(g + ky * width + i * L, c[ky][i]);
    bias = b;
}

// Gradients of the JB outputs of block jb over all images, into our weight layout; x (N, I) and delta (N, J) rows.
template <int JB>
void solo_dense_gradient(const Dense& d, const float* x, int x_stride, const float* delta, int delta_stride, int n_images,
                         int jb, float* g) {
    float* out = g + d.offset + jb * d.row();
    constexpr int wide = 4;
    for (int i0 = 0; i0 < padded(d.inputs); i0 += wide * L) {
        V c[wide][JB] = {};
        for (int n = 0; n < n_images; n++)
            UNROLL for (int k = 0; k < wide; k++) {
                const V xv = load_unaligned(x + static_cast<size_t>(n) * x_stride + i0 + k * L);
                UNROLL for (int b = 0; b < JB; b++) c[k][b] = fma(xv, splat(delta[n * delta_stride + jb * JB + b]), c[k][b]);
            }
        for (int k = 0; k < wide; k++)
            for (int l = 0; l < L && i0 + k * L + l < d.inputs; l++)
                for (int b = 0; b < JB; b++) out[(i0 + k * L + l) * JB + b] = c[k][b][l];
    }
    for (int b = 0; b < JB; b++) {
        float sum = 0;
        for (int n = 0; n < n_images; n++) sum += delta[n * delta_stride + jb * JB + b];
        out[d.inputs * JB + b] = sum;
    }
}

class Solo {
public:
    static size_t bytes(int n) {
        const size_t lanes = padded(n);
        const size_t per_image = (kPixels + 3 * kActs1 + 4 * kActs2 + 4 * (120 + 84 + 2) + 3) * sizeof(float) + kActs1 + kActs2;
        const size_t natural = (kPixels + 2 * kIn1 + 2 * (400 + kWide) + 2 * (120 + kWide) + 2 * (84 + kWide) + 4) * sizeof(float) +
                               kActs1 + kActs2;
        return lanes * per_image + n * natural + 4 * (kParameters + L) * sizeof(float) + kSpread * sizeof(V) * 2 + 65536 +
               units(n) * (kSpread + kActs1) * sizeof(V);
    }

    Solo(const Call& call, int64_t b, Workspace& space) : call_(call), b_(b), N(call.n_images), U(units(N)) {
        w = space.take_zeros<float>(kParameters + L);
        m = space.take_zeros<float>(kParameters + L);
        v = space.take_zeros<float>(kParameters + L);
        g = space.take_zeros<float>(kParameters + L);
        x = space.take_zeros<V>(static_cast<size_t>(U) * kPixels);
        a1 = space.take<V>(static_cast<size_t>(U) * kActs1);
        a2 = space.take<V>(static_cast<size_t>(U) * kActs2);
        d2 = space.take<V>(static_cast<size_t>(U) * kActs2);
        h3 = space.take<V>(U * 120), d3 = space.take<V>(U * 120);
        h4 = space.take<V>(U * 84), d4 = space.take<V>(U * 84);
        h5 = space.take<V>(U * 2), d5 = space.take<V>(U * 2);
        loss = space.take<V>(U), label = space.take_zeros<I>(U), train = space.take_zeros<I>(U);
        arg1 = space.take<Bytes>(static_cast<size_t>(U) * kActs1);
        arg2 = space.take<Bytes>(static_cast<size_t>(U) * kActs2);
        spread = space.take_zeros<V>(static_cast<size_t>(U) * kSpread);
        d_a1 = space.take<V>(static_cast<size_t>(U) * kActs1);
        pixels = space.take_zeros<float>(static_cast<size_t>(N) * kPixels + kSlack);
        flat_a1 = space.take_zeros<float>(static_cast<size_t>(N) * kActs1 + kSlack);
        flat_d1 = space.take<float>(static_cast<size_t>(N) * kActs1);
        flat_d2 = space.take<float>(static_cast<size_t>(N) * kActs2);
        flat_arg1 = space.take<uint8_t>(static_cast<size_t>(N) * kActs1);
        flat_arg2 = space.take<uint8_t>(static_cast<size_t>(N) * kActs2);
        flat_a2 = space.take_zeros<float>(static_cast<size_t>(N) * (400 + kWide));
        flat_h3 = space.take_zeros<float>(static_cast<size_t>(N) * (120 + kWide));
        flat_h4 = space.take_zeros<float>(static_cast<size_t>(N) * (84 + kWide));
        flat_d3 = space.take<float>(N * 120), flat_d4 = space.take<float>(N * 84), flat_d5 = space.take<float>(N * 2);

        const int n_train = call.n_train(b);
        scale_ = 1.0f / static_cast<float>(n_train), n_val_ = static_cast<float>(N - n_train);
        const Layout& layout = Layout::get();
        draw_weights(call.seeds + b, 1, [&](int flat, int, float value) { w[layout.place[flat]] = value; });
        for (int n = 0; n < N; n++) {
            float* p = pixels + static_cast<size_t>(n) * kPixels;
            channels_last(call.image(b, n), p);
            V* to = x + static_cast<size_t>(n / L) * kPixels;
            for (int i = 0; i < kPixels; i++) to[i][n % L] = p[i];
            label[n / L][n % L] = call.labels[b * N + n] ? -1 : 0;
            train[n / L][n % L] = call.train[b * N + n] ? -1 : 0;
        }
    }

    void run(Team& team, int rank) {
        const int begin = U * rank / team.size, end = U * (rank + 1) / team.size;
        for (int t = 1; t <= call_.steps; t++) {
            if (begin < end) images_pass(begin, end);
            if (rank == 0) stop_ = call_.cancelled();
            team.wait();
            if (stop_) return;
            if (rank == 0) write_loss(t);
            if (t == call_.steps) return;
            weights_pass(Adam(call_.lr, t), team, rank);
            team.wait();
        }
    }

    static int units(int n) { return (n + L - 1) / L; }

private:
    static constexpr int kWide = 4 * L;  // solo_dense_gradient reads whole blocks of inputs

    // All that happens image by image: forward, loss, gradients of activations.
    void images_pass(int begin, int end) {
        for (int u = begin; u < end; u++) {
            conv1_forward(x + static_cast<size_t>(u) * kPixels, w + kConv1, a1 + static_cast<size_t>(u) * kActs1,
                          arg1 + static_cast<size_t>(u) * kActs1);
            conv2_forward(a1 + static_cast<size_t>(u) * kActs1, w + kConv2, a2 + u * 4, U, arg2 + static_cast<size_t>(u) * kActs2);
        }
        dense_forward<4>(kFc1, a2, w, h3, U, begin, end, true);
        dense_forward<4>(kFc2, h3, w, h4, U, begin, end, true);
        dense_forward<2>(kFc3, h4, w, h5, U, begin, end, false);
        for (int u = begin; u < end; u++) loss[u] = loss_and_gradient(h5 + u * 2, label[u], train[u], splat(scale_), d5 + u * 2);
        dense_input_gradient<2>(kFc3, d5, w, h4, d4, U, begin, end);
        dense_input_gradient<4>(kFc2, d4, w, h3, d3, U, begin, end);
        dense_input_gradient<4>(kFc1, d3, w, a2, d2, U, begin, end);
        for (int u = begin; u < end; u++) {
            V* sp = spread + static_cast<size_t>(u) * kSpread;
            V* d = d_a1 + static_cast<size_t>(u) * kActs1;
            const V* a = a1 + static_cast<size_t>(u) * kActs1;
            spread_windows(d2 + u * 4, U, arg2 + static_cast<size_t>(u) * kActs2, sp);
            conv2_input_gradient(sp, w + kConv2, d);
            for (int i = 0; i < kActs1; i++) d[i] = a[i] <= 0.0f ? V{} : d[i];
            untangle(u, a, kActs1, flat_a1, kActs1);
            untangle(u, d, kActs1, flat_d1, kActs1);
            untangle(u, arg1 + static_cast<size_t>(u) * kActs1, kActs1, flat_arg1, kActs1);
            untangle(u, arg2 + static_cast<size_t>(u) * kActs2, kActs2, flat_arg2, kActs2);
            untangle_blocks<4>(u, a2, 400, flat_a2, 400 + kWide);
            untangle_blocks<4>(u, d2, 400, flat_d2, 400);
            untangle_blocks<4>(u, h3, 120, flat_h3, 120 + kWide);
            untangle_blocks<4>(u, d3, 120, flat_d3, 120);
            untangle_blocks<4>(u, h4, 84, flat_h4, 84 + kWide);
            untangle_blocks<4>(u, d4, 84, flat_d4, 84);
            untangle_blocks<2>(u, d5, 2, flat_d5, 2);
        }
    }

    // From lanes of images to one row per image.
    template <class From, class To>
    void untangle(int u, const From* from, int count, To* to, int row) {
        const int lanes = N - u * L < L ? N - u * L : L;
        for (int l = 0; l < lanes; l++)
            for (int i = 0; i < count; i++) to[static_cast<size_t>(u * L + l) * row + i] = reinterpret_cast<const To*>(from + i)[l];
    }
    template <int B>
    void untangle_blocks(int u, const V* from, int count, float* to, int row) {
        for (int i = 0; i < count; i += B) {
            const V* block = from + (static_cast<size_t>(i / B) * U + u) * B;
            untangle(u, block, B, to + i, row);
        }
    }

    void write_loss(int t) {
        float sum = 0;
        for (int n = 0; n < N; n++) sum += train[n / L][n % L] ? 0.0f : loss[n / L][n % L];
        call_.curves[b_ * call_.steps + t - 1] = canonical(sum / n_val_);
    }

    // Gradients of weights, each over all images in order, and their updates. Threads take blocks of outputs in turn.
    void weights_pass(const Adam& adam, const Team& team, int rank) {
        int item = 0;
        const auto mine = [&] { return item++ % team.size == rank; };
        for (int o = 0; o < kOut1; o++)
            if (mine()) {
                float row[5 * padded(15)];
                float& bias = g[kConv1 + 450 + o];
                solo_conv_gradient<3, 14, kOut1, kWindows1>(pixels, kPixels, kRow0, flat_d1, kActs1, flat_arg1, N, o, false, row, bias);
                for (int t = 0; t < kTaps1; t++) one(adam, kConv1 + t * 6 + o, row[t / 15 * padded(15) + t % 15]);
                one(adam, kConv1 + 450 + o, bias);
            }
        bool finite = true;
        for (size_t i = 0; i < static_cast<size_t>(N) * kActs1; i++) finite &= flat_a1[i] - flat_a1[i] == 0.0f;
        for (int o = 0; o < kOut2; o++)
            if (mine()) {
                float row[5 * padded(30)];
                float& bias = g[kConv2 + 2400 + o];
                solo_conv_gradient<6, 5, kOut2, kWindows2>(flat_a1, kActs1, kRow1, flat_d2, kActs2, flat_arg2, N, o, !finite, row, bias);
                for (int t = 0; t < kTaps2; t++) one(adam, kConv2 + (o / 4 * kTaps2 + t) * 4 + o % 4, row[t / 30 * padded(30) + t % 30]);
                one(adam, kConv2 + 2400 + o, bias);
            }
        dense_update<4>(kFc1, flat_a2, flat_d3, adam, mine);
        dense_update<4>(kFc2, flat_h3, flat_d4, adam, mine);
        dense_update<2>(kFc3, flat_h4, flat_d5, adam, mine);
    }

    template <int JB, class Mine>
    void dense_update(const Dense& d, const float* in, const float* delta, const Adam& adam, Mine mine) {
        for (int jb = 0; jb < d.outputs / JB; jb++)
            if (mine()) {
                solo_dense_gradient<JB>(d, in, d.inputs + kWide, delta, d.outputs, N, jb, g);
                const int from = d.offset + jb * d.row();
                for (int i = 0; i < d.row(); i += L) {
                    const int count = d.row() - i < L ? d.row() - i : L;
                    if (count == L) many(adam, from + i, g + from + i);
                    else for (int k = 0; k < count; k++) one(adam, from + i + k, g[from + i + k]);
                }
            }
    }
    void many(const Adam& adam, int at, const float* gradient) {
        V wv = load_unaligned(w + at), mv = load_unaligned(m + at), vv = load_unaligned(v + at);
        adam.update(load_unaligned(gradient), wv, mv, vv);
        store_unaligned(w + at, wv), store_unaligned(m + at, mv), store_unaligned(v + at, vv);
    }
    void one(const Adam& adam, int at, float gradient) {
        V wv = splat(w[at]), mv = splat(m[at]), vv = splat(v[at]);
        adam.update(splat(gradient), wv, mv, vv);
        w[at] = wv[0], m[at] = mv[0], v[at] = vv[0];
    }

    const Call& call_;
    const int64_t b_;
    const int N, U;  // images, units of L images
    float scale_, n_val_;
    bool stop_ = false;
    float *w, *m, *v, *g;
    V *x, *a1, *a2, *d2, *h3, *d3, *h4, *d4, *h5, *d5, *loss, *spread, *d_a1;
    I *label, *train;
    Bytes *arg1, *arg2;
    float *pixels, *flat_a1, *flat_d1, *flat_d2, *flat_a2, *flat_h3, *flat_h4, *flat_d3, *flat_d4, *flat_d5;
    uint8_t *flat_arg1, *flat_arg2;
};

void train_solo(const Call& call, int64_t b) {
    Workspace space(Solo::bytes(call.n_images));
    Team team(1);
    Solo(call, b, space).run(team, 0);
}

// -------------------------------------------------------------------------------------------------- work list

struct Item {
    std::vector<int64_t> members;  // one: solo, or more: a group
    bool solo;
};

enum Mode { kAuto = 0, kGroups = 1, kSolos = 2 };

// Time of one solo training on one thread, in group times: image units against images, and what it does besides.
double solo_cost(int n_images) { return 1.35 * Solo::units(n_images) / n_images; }

// Groups where lanes and cores can be filled, solo trainings where not. All choices give the same bits.
std::vector<Item> plan(const Call& call, int64_t batch, int threads, Mode mode) {
    std::vector<std::vector<int64_t>> sets;
    std::vector<int64_t> set_of;  // few sets: linear in their largest number
    for (int64_t b = 0; b < batch; b++) {
        if (static_cast<size_t>(call.image_set[b]) >= set_of.size()) set_of.resize(call.image_set[b] + 1, -1);
        int64_t& s = set_of[call.image_set[b]];
        if (s < 0) s = static_cast<int64_t>(sets.size()), sets.emplace_back();
        sets[s].push_back(b);
    }
    const double solo = solo_cost(call.n_images);
    std::vector<Item> groups, solos;
    for (const auto& members : sets)
        for (size_t i = 0; i < members.size(); i += L) {
            const size_t count = members.size() - i < L ? members.size() - i : L;
            const bool one_by_one = mode == kSolos || (mode == kAuto && static_cast<double>(count) * solo < 1);
            if (!one_by_one) groups.push_back({{members.begin() + i, members.begin() + i + count}, false});
            for (size_t k = 0; one_by_one && k < count; k++) solos.push_back({{members[i + k]}, true});
        }
    // Groups that would leave threads idle in the last round are dissolved where that is estimated to end sooner.
    const int odd = static_cast<int>(groups.size() % threads);
    if (mode == kAuto && odd != 0) {
        double extra = 0;
        for (int i = 0; i < odd; i++) extra += static_cast<double>(groups[groups.size() - 1 - i].members.size()) * solo;
        const double rest = static_cast<double>(solos.size()) * solo;
        const double together = (odd + rest) / threads > 1 ? (odd + rest) / threads : 1, apart = (extra + rest) / threads;
        for (int i = 0; apart < together && i < odd; i++) {
            for (int64_t b : groups.back().members) solos.push_back({{b}, true});
            groups.pop_back();
        }
    }
    groups.insert(groups.end(), solos.begin(), solos.end());
    return groups;
}

// Runs body(0) .. body(count - 1) on threads of their own (the first on this one); fewer where the system refuses.
// The first exception is passed on after all have ended.
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

void run_items(const Call& call, const std::vector<Item>& items, int threads) {
    std::atomic<size_t> next{0};
    std::atomic<bool> failed{false};
    if (in_parallel(threads, [&](int) {
            for (size_t i; !call.cancelled() && (i = next++) < items.size();) {
                if (items[i].solo) train_solo(call, items[i].members[0]);
                else train_group(call, items[i].members.data(), static_cast<int>(items[i].members.size()));
            }
        }) != 0)
        throw std::bad_alloc();
}

// Fewer solo trainings than threads: each gets a team.
void run_team(const Call& call, int64_t b, int size) {
    Workspace space(Solo::bytes(call.n_images));
    Solo solo(call, b, space);
    Team team(size);
    std::vector<std::thread> others;
    std::atomic<int> go{0};  // a team starts only when it is complete
    try {
        for (int rank = 1; rank < size; rank++)
            others.emplace_back([&, rank] {
                while (go.load(std::memory_order_acquire) == 0) std::this_thread::yield();
                if (go.load(std::memory_order_acquire) > 0) solo.run(team, rank);
            });
    } catch (const std::system_error&) {
        go.store(-1, std::memory_order_release);
        for (auto& thread : others) thread.join();
        Team alone(1);
        solo.run(alone, 0);
        return;
    }
    go.store(1, std::memory_order_release);
    solo.run(team, 0);
    for (auto& thread : others) thread.join();
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
    draw_weights(&seed, 1, [&](int flat, int, float value) { out[flat] = value; });
}

// Curves of `batch` trainings; 0 when done, 1 when cancelled, 2 when out of memory. Arguments are checked by the caller.
EXPORT int lanes_curves(const float* images, int n_images, const uint8_t* labels, const uint8_t* train, const uint64_t* seeds,
                 const int64_t* image_set, int64_t batch, int steps, double lr, int threads,
                 const int32_t* cancel, float* curves) {
    static_assert(sizeof(std::atomic<int32_t>) == sizeof(int32_t), "the flag is a plain word to the caller");
    const Call call{images, n_images, labels, train, seeds, image_set, steps, lr,
                    reinterpret_cast<const std::atomic<int32_t>*>(cancel), curves};
    try {
        const std::vector<Item> items = plan(call, batch, threads, kAuto);
        const int count = static_cast<int>(items.size());
        bool all_solo = true;
        for (const Item& item : items) all_solo &= item.solo;
        if (all_solo && count < threads) {
            const int units = Solo::units(n_images);
            if (in_parallel(count, [&](int i) {
                    const int share = threads / count + (i < threads % count);
                    run_team(call, items[i].members[0], share < units ? share : units);
                }) != 0)
                throw std::bad_alloc();
        } else {
            run_items(call, items, threads < count ? threads : count);
        }
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
