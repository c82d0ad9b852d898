// The engine `cuda`: one thread block trains one network from its initial weights to its curve. The blocks of a launch
// share nothing but the images, so what a network computes cannot depend on the others.
//
// Every sum has a fixed order that depends neither on the number of threads nor on the batch. There are no atomics, no
// library calls, and no fused multiply-adds but those written as fmaf (it is compiled with -fmad=false), so a CPU
// computes the same bits: tests/engine/cells_shim.cpp compiles this file with g++, by other definitions of the macros.
//
// Never run on a GPU so far. docs/performance.md says what has been checked, and how.

#if !defined(KERNEL)
#define KERNEL extern "C" __global__ void __launch_bounds__(256, 2)  // two blocks on a multiprocessor: 128 registers
#define DEVICE __device__ __forceinline__
#define SHARED __shared__
#define BARRIER() __syncthreads()
#define THREAD static_cast<int>(threadIdx.x)
#define THREADS static_cast<int>(blockDim.x)
#define BLOCK static_cast<int>(blockIdx.x)
#define UNROLL _Pragma("unroll")
#endif

// The threads of a block share the work of a loop; neighbours take neighbouring numbers.
#define EACH(i, count) for (int i = THREAD; i < (count); i += THREADS)

typedef unsigned char Byte;
typedef unsigned int Word;
typedef unsigned long long Seed;

// --------------------------------------------------------------------------------------------------- the network

// Flat parameters in the layout of tdbench/engine/networks.py: where each layer begins.
constexpr int kConv1 = 0, kBias1 = 450, kConv2 = 456, kBias2 = 2856, kFc1 = 2872, kFc2 = 50992, kFc3 = 61156;
constexpr int kParameters = 61326;
constexpr int kPixels = 3 * 32 * 32, kPooled1 = 6 * 14 * 14, kPooled2 = 16 * 5 * 5, kHidden1 = 120, kHidden2 = 84;
constexpr int kSize1 = kConv2 - kConv1, kSize2 = kFc1 - kConv2;  // parameters of the convolutions, with biases

constexpr int kRows = 5;                  // images that a thread takes together in a dense layer
constexpr int kTile = 40;                 // inputs of a dense layer whose weights are in shared memory together
constexpr int kTilePitch = kTile + 1;     // odd, so that neighbouring outputs lie in different banks
constexpr int kSlices1 = 7, kSlices2 = 3;  // parts of an image whose kernel gradients are summed apart

// What a launch works on. tdbench/engine/cuda.py has the same structure.
struct Work {
    const float* images;   // [image set][n][3][32][32]
    const int* image_set;  // [network]
    const Byte* labels;    // [network][n], 0 or 1
    const Byte* train;     // [network][n], 1 on the training side
    const Seed* seeds;     // [network] of the initial weights; null where `weights` holds them
    const float* adam;     // [steps][2]: learning rate / (1 - 0.9^t), and 1 / sqrt(1 - 0.999^t)
    float* weights;        // [network][61326]: initial ones in, trained ones out
    float* scratch;        // [network][scratch_floats(n)], kept from one launch to the next
    float* curves;         // [network][steps]
    int n, steps;
    int begin, end;        // this launch does the steps from begin to end - 1
    int frozen;            // 1 where the convolutions keep their weights, and so compute the same in all steps
};

// The memory of a network beside its weights. Images stand in the order of `place`: the training side first.
struct Memory {
    float *first, *second;                          // Adam's moments
    float *pooled1, *pooled2, *hidden1, *hidden2;   // activations after ReLU, [position][...]
    float *back1, *back2, *back_hidden1, *back_hidden2;  // gradients before ReLU, of the training side
    float *logits, *back_logits, *losses;           // [position][2], [position][2], [position]
    float *parts1, *parts2;                         // [slice] gradients of the convolutions' parameters
    int *place, *label;                             // [position] the image that stands there; its class
    Byte *top1, *top2;                              // which of the 4 outputs of a pooling window was the largest

    // Places the arrays from `base` on, each at a multiple of 4 floats, so that 4 can be read at once. Returns the
    // number of floats.
    DEVICE long long lay_out(float* base, int n) {
        float* at = base;
        const auto take = [&at](long long count) {
            float* from = at;
            at += (count + 3) / 4 * 4;
            return from;
        };
        first = take(kParameters), second = take(kParameters);
        pooled1 = take(1ll * n * kPooled1), pooled2 = take(1ll * n * kPooled2);
        hidden1 = take(1ll * n * kHidden1), hidden2 = take(1ll * n * kHidden2);
        back1 = take(1ll * n * kPooled1), back2 = take(1ll * n * kPooled2);
        back_hidden1 = take(1ll * n * kHidden1), back_hidden2 = take(1ll * n * kHidden2);
        logits = take(2ll * n), back_logits = take(2ll * n), losses = take(n);
        parts1 = take(kSlices1 * kSize1), parts2 = take(kSlices2 * kSize2);
        place = reinterpret_cast<int*>(take(n)), label = reinterpret_cast<int*>(take(n));
        top1 = reinterpret_cast<Byte*>(take(1ll * n * kPooled1 / 4));
        top2 = reinterpret_cast<Byte*>(take(1ll * n * kPooled2 / 4));
        return at - base;
    }
};

// ------------------------------------------------------------------------------------------------------ functions

// NaN stays NaN, so that a diverged training cannot get finite values again.
DEVICE float relu(float x) { return x <= 0.0f ? 0.0f : x; }

// exp(x) for x <= 0, within 2 ulp; 0 below -87, where float32 turns subnormal; NaN for NaN. Cody-Waite reduction by
// ln 2 and the Taylor polynomial of degree 7 on |r| <= ln(2) / 2.
DEVICE float exp_nonpositive(float x) {
    if (x < -87.0f) return 0.0f;
    union Bits {
        float number;
        Word word;
    } shifted, scale;
    shifted.number = fmaf(x, 1.44269504f, 12582912.0f);  // 1.5 * 2^23: the integer part, in the low bits
    const float n = shifted.number - 12582912.0f;
    const float r = fmaf(n, 2.12194440e-4f, fmaf(n, -0.693359375f, x));
    float p = 1.0f / 5040;
    p = fmaf(p, r, 1.0f / 720);
    p = fmaf(p, r, 1.0f / 120);
    p = fmaf(p, r, 1.0f / 24);
    p = fmaf(p, r, 1.0f / 6);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    scale.word = (shifted.word << 23) + 0x3f800000u;
    return p * scale.number;
}

// log(1 + x) for 0 <= x <= 1, within 2 ulp: 2 artanh(s), s = x / (2 + x) <= 1/3, as its odd power series.
DEVICE float log_one_plus(float x) {
    const float s = x / (x + 2.0f), q = s * s;
    float p = 1.0f / 17;
    p = fmaf(p, q, 1.0f / 15);
    p = fmaf(p, q, 1.0f / 13);
    p = fmaf(p, q, 1.0f / 11);
    p = fmaf(p, q, 1.0f / 9);
    p = fmaf(p, q, 1.0f / 7);
    p = fmaf(p, q, 1.0f / 5);
    p = fmaf(p, q, 1.0f / 3);
    return fmaf((s + s) * q, p, s + s);
}

// The parameters of a layer with Adam's moments; its update is torch.optim.Adam's with the default settings.
struct Parameters {
    float *weights, *first, *second;
    float step, root;  // see Work::adam

    DEVICE Parameters from(int offset) const { return {weights + offset, first + offset, second + offset, step, root}; }
    DEVICE void update(int i, float gradient) const {
        const float m = fmaf(0.1f, gradient - first[i], first[i]);
        const float v = fmaf(gradient * 0.001f, gradient, second[i] * 0.999f);
        first[i] = m, second[i] = v;
        weights[i] = fmaf(-step, m / fmaf(sqrtf(v), root, 1e-8f), weights[i]);
    }
};

// ------------------------------------------------------------------------------------------------- initial weights

// Uniform within 1 / sqrt(fan in), biases too.
DEVICE float initial_bound(int i) {
    return static_cast<float>(i < kConv2  ? 0.11547005383792516
                              : i < kFc1 ? 0.08164965809277261
                              : i < kFc2 ? 0.05
                              : i < kFc3 ? 0.09128709291752768
                                         : 0.10910894511799618);
}

// Philox4x32-10 (Salmon et al., SC 2011) as tdbench/base/rng.py defines it, stream WEIGHTS = 1: weight i is word i % 4
// of block i / 4, its upper 24 bits mapped to [-1, 1), times its bound.
DEVICE void draw_four(Seed seed, int block, float* weights) {
    Word c[4] = {static_cast<Word>(block), 0, 1, 0};
    Word k0 = static_cast<Word>(seed), k1 = static_cast<Word>(seed >> 32);
    for (int round = 0; round < 10; round++) {
        const Seed p0 = Seed{0xD2511F53u} * c[0], p1 = Seed{0xCD9E8D57u} * c[2];
        c[0] = static_cast<Word>(p1 >> 32) ^ c[1] ^ k0;
        c[2] = static_cast<Word>(p0 >> 32) ^ c[3] ^ k1;
        c[1] = static_cast<Word>(p1), c[3] = static_cast<Word>(p0);
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    UNROLL for (int word = 0; word < 4; word++) {
        const int i = block * 4 + word;
        const float unit = static_cast<float>(static_cast<int>(c[word] >> 8)) * 1.1920928955078125e-7f - 1.0f;
        if (i < kParameters) weights[i] = unit * initial_bound(i);
    }
}

// ---------------------------------------------------------------------------------------------------- convolutions

// The kernels of a convolution into shared memory, outputs innermost: [channel][tap][output].
template <int Channels, int Outputs>
DEVICE void load_kernels(const float* weights, float* kernels) {
    EACH(k, Channels * 25 * Outputs)
        kernels[k] = weights[(k % Outputs * Channels + k / (25 * Outputs)) * 25 + k / Outputs % 25];
}

// Convolution, max-pool and ReLU. A thread computes the 4 outputs of a pooling window for `Group` output channels.
// As in PyTorch, the first of several equal maxima is taken, and NaN is larger than any number.
template <int Channels, int Outputs, int Side, int Group>
DEVICE void convolve(int n, const float* in, const int* place, const float* kernels, const float* bias, float* out,
                     Byte* top) {
    constexpr int pooled = (Side - 4) / 2, windows = pooled * pooled, groups = Outputs / Group;
    EACH(k, n * groups * windows) {
        const int position = k / (groups * windows), first = k / windows % groups * Group, window = k % windows;
        const float* image = in + 1ll * (place ? place[position] : position) * Channels * Side * Side;
        float sum[Group][4];
        UNROLL for (int o = 0; o < Group; o++)
            UNROLL for (int q = 0; q < 4; q++) sum[o][q] = bias[first + o];
        for (int c = 0; c < Channels; c++) {
            const float* corner = image + (c * Side + window / pooled * 2) * Side + window % pooled * 2;
            float patch[6][6];
            UNROLL for (int y = 0; y < 6; y++)
                UNROLL for (int x = 0; x < 6; x++) patch[y][x] = corner[y * Side + x];
            UNROLL for (int tap = 0; tap < 25; tap++)
                UNROLL for (int o = 0; o < Group; o++) {
                    const float weight = kernels[(c * 25 + tap) * Outputs + first + o];
                    UNROLL for (int q = 0; q < 4; q++)
                        sum[o][q] = fmaf(patch[tap / 5 + q / 2][tap % 5 + q % 2], weight, sum[o][q]);
                }
        }
        UNROLL for (int o = 0; o < Group; o++) {
            float largest = sum[o][0];
            int which = 0;
            UNROLL for (int q = 1; q < 4; q++)
                if (sum[o][q] > largest || sum[o][q] != sum[o][q]) largest = sum[o][q], which = q;
            const long long at = (1ll * position * Outputs + first + o) * windows + window;
            out[at] = relu(largest);
            top[at] = static_cast<Byte>(which);
        }
    }
}

// Gradients of the kernels and biases of a convolution, in `Slices` parts [slice][parameter]. Only the largest output
// of a pooling window passes a gradient on. A thread computes one kernel row of one output over a slice of each image,
// from a copy of the image in shared memory, whose rows are apart such that the threads read different banks.
template <int Channels, int Outputs, int Side, int Slices>
DEVICE void kernel_gradients(int n_train, const float* in, const int* place, const float* back, const Byte* top,
                             float* shared, float* parts) {
    constexpr int pooled = (Side - 4) / 2, pitch = Side + 4, tasks = Slices * Outputs * 5;
    constexpr int weights = Outputs * Channels * 25, size = weights + Outputs;
    for (int begin = 0; begin < tasks; begin += THREADS) {
        const int task = begin + THREAD, slice = task / (Outputs * 5), output = task / 5 % Outputs, ky = task % 5;
        const int first = pooled * slice / Slices, last = task < tasks ? pooled * (slice + 1) / Slices : first;
        float sum[Channels][5] = {}, bias = 0.0f;
        for (int t = 0; t < n_train; t++) {
            const float* image = in + 1ll * (place ? place[t] : t) * Channels * Side * Side;
            BARRIER();  // nobody reads the image before any more
            EACH(k, Channels * Side * Side) shared[k / Side * pitch + k % Side] = image[k];
            BARRIER();
            for (int y = first; y < last; y++)
                for (int x = 0; x < pooled; x++) {
                    const long long at = ((1ll * t * Outputs + output) * pooled + y) * pooled + x;
                    const float gradient = back[at];
                    const float* row = shared + (2 * y + top[at] / 2 + ky) * pitch + 2 * x + top[at] % 2;
                    bias += gradient;
                    UNROLL for (int c = 0; c < Channels; c++)
                        UNROLL for (int kx = 0; kx < 5; kx++)
                            sum[c][kx] = fmaf(gradient, row[c * Side * pitch + kx], sum[c][kx]);
                }
        }
        if (task >= tasks) continue;
        float* part = parts + slice * size;
        UNROLL for (int c = 0; c < Channels; c++)
            UNROLL for (int kx = 0; kx < 5; kx++) part[((output * Channels + c) * 5 + ky) * 5 + kx] = sum[c][kx];
        if (ky == 0) part[weights + output] = bias;
    }
}

template <int Size, int Slices>
DEVICE void update_convolution(const float* parts, Parameters parameters) {
    EACH(k, Size) {
        float gradient = 0.0f;
        UNROLL for (int slice = 0; slice < Slices; slice++) gradient += parts[slice * Size + k];
        parameters.update(k, gradient);
    }
}

// Gradients of the first convolution's activations. A thread gathers them for the 6 channels of one place, from every
// pooling window of the second convolution that a kernel can reach it from.
DEVICE void gather_gradients(int n_train, const float* kernels, const Memory memory) {
    EACH(k, n_train * 196) {
        const int t = k / 196, place = k % 196, y = place / 14, x = place % 14;
        const int first_y = y < 5 ? 0 : (y - 4) / 2, last_y = y / 2 < 4 ? y / 2 : 4;
        const int first_x = x < 5 ? 0 : (x - 4) / 2, last_x = x / 2 < 4 ? x / 2 : 4;
        float sum[6] = {};
        for (int wy = first_y; wy <= last_y; wy++)
            for (int wx = first_x; wx <= last_x; wx++)
                for (int output = 0; output < 16; output++) {
                    const long long at = 1ll * t * kPooled2 + output * 25 + wy * 5 + wx;
                    const int ky = y - 2 * wy - memory.top2[at] / 2, kx = x - 2 * wx - memory.top2[at] % 2;
                    if (ky < 0 || ky > 4 || kx < 0 || kx > 4) continue;
                    const float gradient = memory.back2[at];
                    UNROLL for (int c = 0; c < 6; c++)
                        sum[c] = fmaf(gradient, kernels[(output * 6 + c) * 25 + ky * 5 + kx], sum[c]);
                }
        UNROLL for (int c = 0; c < 6; c++) {
            const long long at = 1ll * t * kPooled1 + c * 196 + place;
            memory.back1[at] = memory.pooled1[at] <= 0.0f ? 0.0f : sum[c];
        }
    }
}

// ---------------------------------------------------------------------------------------------------- dense layers

struct alignas(16) Four {
    float at[4];
};

// out[position] = in[position] * weights' + bias, for weights [output][input] with the biases behind them. A thread
// takes 2 outputs of kRows images. The weights come through shared memory, kTile inputs at a time; the sums so far are
// kept in `out`. `in` is first read after a barrier, and `out` is complete at the end.
template <int Inputs, int Outputs, bool Rectified>
DEVICE void dense(int n, const float* in, const float* weights, float* tile, float* out) {
    constexpr int half = Outputs / 2;
    for (int begin = 0; begin < Inputs; begin += kTile) {
        const int width = Inputs - begin < kTile ? Inputs - begin : kTile;
        EACH(k, Outputs * width)
            tile[k / width * kTilePitch + k % width] = weights[k / width * Inputs + begin + k % width];
        BARRIER();
        EACH(k, half * ((n + kRows - 1) / kRows)) {
            const int output = k % half, first = k / half * kRows;
            float sum[2][kRows];
            int row[kRows];  // rows behind the last one repeat it, and are not written
            UNROLL for (int r = 0; r < kRows; r++) {
                row[r] = first + r < n ? first + r : n - 1;
                UNROLL for (int o = 0; o < 2; o++) {
                    const int at = output + o * half;
                    sum[o][r] = begin == 0 ? weights[Inputs * Outputs + at] : out[1ll * row[r] * Outputs + at];
                }
            }
            const float *near = tile + output * kTilePitch, *far = near + half * kTilePitch;
            for (int i = 0; i < width; i += 4) {
                Four x[kRows];
                UNROLL for (int r = 0; r < kRows; r++)
                    x[r] = *reinterpret_cast<const Four*>(in + 1ll * row[r] * Inputs + begin + i);
                UNROLL for (int j = 0; j < 4; j++)
                    UNROLL for (int r = 0; r < kRows; r++) {
                        sum[0][r] = fmaf(x[r].at[j], near[i + j], sum[0][r]);
                        sum[1][r] = fmaf(x[r].at[j], far[i + j], sum[1][r]);
                    }
            }
            const bool done = Rectified && begin + width == Inputs;
            UNROLL for (int r = 0; r < kRows; r++)
                UNROLL for (int o = 0; o < 2; o++)
                    if (first + r < n)
                        out[1ll * row[r] * Outputs + output + o * half] = done ? relu(sum[o][r]) : sum[o][r];
        }
        BARRIER();
    }
}

// Gradients of the inputs of a dense layer, which ReLU has made: zero where it was zero.
template <int Inputs, int Outputs>
DEVICE void dense_back(int n_train, const float* back, const float* weights, const float* in, float* out) {
    constexpr int half = Inputs / 2;
    EACH(k, half * ((n_train + kRows - 1) / kRows)) {
        const int input = k % half, first = k / half * kRows;
        float sum[2][kRows] = {};
        int row[kRows];
        UNROLL for (int r = 0; r < kRows; r++) row[r] = first + r < n_train ? first + r : n_train - 1;
        for (int output = 0; output < Outputs; output++) {
            const float near = weights[output * Inputs + input], far = weights[output * Inputs + input + half];
            UNROLL for (int r = 0; r < kRows; r++) {
                const float gradient = back[1ll * row[r] * Outputs + output];
                sum[0][r] = fmaf(gradient, near, sum[0][r]);
                sum[1][r] = fmaf(gradient, far, sum[1][r]);
            }
        }
        UNROLL for (int r = 0; r < kRows; r++)
            UNROLL for (int i = 0; i < 2; i++) {
                const long long at = 1ll * row[r] * Inputs + input + i * half;
                if (first + r < n_train) out[at] = in[at] <= 0.0f ? 0.0f : sum[i][r];
            }
    }
}

// One step of Adam on a dense layer. The gradients never leave the registers: a thread has those of 2 inputs and
// `Group` outputs.
template <int Inputs, int Outputs, int Group>
DEVICE void dense_update(int n_train, const float* in, const float* back, Parameters parameters) {
    constexpr int half = Inputs / 2;
    EACH(k, half * (Outputs / Group)) {
        const int input = k % half, output = k / half * Group;
        float sum[Group][2] = {};
        for (int t = 0; t < n_train; t++) {
            const float near = in[1ll * t * Inputs + input], far = in[1ll * t * Inputs + input + half];
            UNROLL for (int o = 0; o < Group; o++) {
                const float gradient = back[1ll * t * Outputs + output + o];
                sum[o][0] = fmaf(gradient, near, sum[o][0]);
                sum[o][1] = fmaf(gradient, far, sum[o][1]);
            }
        }
        UNROLL for (int o = 0; o < Group; o++)
            UNROLL for (int i = 0; i < 2; i++) parameters.update((output + o) * Inputs + input + i * half, sum[o][i]);
    }
    EACH(output, Outputs) {
        float gradient = 0.0f;
        for (int t = 0; t < n_train; t++) gradient += back[1ll * t * Outputs + output];
        parameters.update(Inputs * Outputs + output, gradient);
    }
}

// -------------------------------------------------------------------------------------------------------- training

// The training side first, each side in the order of its images. Returns the size of the training side.
DEVICE int sort_images(const Work& work, const Memory& memory) {
    const long long row = 1ll * BLOCK * work.n;
    int position = 0, n_train = 0;
    for (int side = 1; side >= 0; side--) {
        for (int i = 0; i < work.n; i++) {
            if ((work.train[row + i] != 0) != (side == 1)) continue;
            memory.place[position] = i;
            memory.label[position++] = work.labels[row + i];
        }
        if (side == 1) n_train = position;
    }
    return n_train;
}

// Cross-entropy of the two logits of each image, and its gradient for the mean over the training side.
DEVICE void cross_entropy(int n, int n_train, const Memory memory) {
    EACH(p, n) {
        const float *z = memory.logits + 2 * p, infinite_is_nan = z[0] * 0.0f + z[1] * 0.0f;
        const int label = memory.label[p];
        const float d = z[1 - label] - z[label] + infinite_is_nan, e = exp_nonpositive(d <= 0.0f ? d : -d);
        const float wrong = (d <= 0.0f ? e : 1.0f) / (e + 1.0f);  // the probability of the other class
        memory.losses[p] = relu(d) + log_one_plus(e);
        memory.back_logits[2 * p + label] = -wrong / static_cast<float>(n_train);
        memory.back_logits[2 * p + 1 - label] = wrong / static_cast<float>(n_train);
    }
}

DEVICE float mean_validation_loss(int n, int n_train, const float* losses) {
    float sum = 0.0f;
    for (int p = n_train; p < n; p++) sum += losses[p];
    return sum / static_cast<float>(n - n_train);  // NaN without a validation side
}

struct SharedMemory {
    float kernels1[kBias1], bias1[6], kernels2[kBias2 - kConv2], bias2[16];  // for the forward pass
    float tile[kHidden1 * kTilePitch];  // weights of a dense layer, kernels for the way back, or an image
    int n_train;
};

DEVICE void convolve_all(const Work& work, const float* weights, const Memory& memory, SharedMemory& shared) {
    load_kernels<3, 6>(weights + kConv1, shared.kernels1);
    load_kernels<6, 16>(weights + kConv2, shared.kernels2);
    EACH(k, 6) shared.bias1[k] = weights[kBias1 + k];
    EACH(k, 16) shared.bias2[k] = weights[kBias2 + k];
    BARRIER();
    const float* images = work.images + 1ll * work.image_set[BLOCK] * work.n * kPixels;
    convolve<3, 6, 32, 6>(work.n, images, memory.place, shared.kernels1, shared.bias1, memory.pooled1, memory.top1);
    BARRIER();
    convolve<6, 16, 14, 4>(work.n, memory.pooled1, nullptr, shared.kernels2, shared.bias2, memory.pooled2, memory.top2);
}

// It first reads what the convolutions have written after a barrier.
DEVICE void classify(const Work& work, const float* weights, const Memory& memory, SharedMemory& shared) {
    dense<kPooled2, kHidden1, true>(work.n, memory.pooled2, weights + kFc1, shared.tile, memory.hidden1);
    dense<kHidden1, kHidden2, true>(work.n, memory.hidden1, weights + kFc2, shared.tile, memory.hidden2);
    dense<kHidden2, 2, false>(work.n, memory.hidden2, weights + kFc3, shared.tile, memory.logits);
}

DEVICE void update_convolutions(const Work& work, int n_train, const Parameters& parameters, const Memory& memory,
                                SharedMemory& shared) {
    gather_gradients(n_train, shared.tile, memory);
    kernel_gradients<6, 16, 14, kSlices2>(n_train, memory.pooled1, nullptr, memory.back2, memory.top2, shared.tile,
                                          memory.parts2);
    const float* images = work.images + 1ll * work.image_set[BLOCK] * work.n * kPixels;
    kernel_gradients<3, 6, 32, kSlices1>(n_train, images, memory.place, memory.back1, memory.top1, shared.tile,
                                         memory.parts1);
    BARRIER();
    update_convolution<kSize1, kSlices1>(memory.parts1, parameters.from(kConv1));
    update_convolution<kSize2, kSlices2>(memory.parts2, parameters.from(kConv2));
}

DEVICE void backward_and_update(const Work& work, int n_train, const Parameters& parameters, const Memory& memory,
                                SharedMemory& shared) {
    const float* weights = parameters.weights;
    dense_back<kHidden2, 2>(n_train, memory.back_logits, weights + kFc3, memory.hidden2, memory.back_hidden2);
    BARRIER();
    dense_back<kHidden1, kHidden2>(n_train, memory.back_hidden2, weights + kFc2, memory.hidden1, memory.back_hidden1);
    BARRIER();
    if (!work.frozen) {
        dense_back<kPooled2, kHidden1>(n_train, memory.back_hidden1, weights + kFc1, memory.pooled2, memory.back2);
        EACH(k, kBias2 - kConv2) shared.tile[k] = weights[kConv2 + k];
    }
    BARRIER();
    dense_update<kHidden2, 2, 2>(n_train, memory.hidden2, memory.back_logits, parameters.from(kFc3));
    dense_update<kHidden1, kHidden2, 4>(n_train, memory.hidden1, memory.back_hidden2, parameters.from(kFc2));
    dense_update<kPooled2, kHidden1, 4>(n_train, memory.pooled2, memory.back_hidden1, parameters.from(kFc1));
    if (!work.frozen) update_convolutions(work, n_train, parameters, memory, shared);
    BARRIER();
}

// Block b trains network b, from step work.begin to step work.end.
KERNEL train_cells(const Work work) {
    SHARED SharedMemory shared;
    SHARED Memory memory;  // in registers, these pointers would leave too few for the sums
    if (THREAD == 0) {
        const long long size = memory.lay_out(work.scratch, work.n);
        memory.lay_out(work.scratch + BLOCK * size, work.n);
        shared.n_train = sort_images(work, memory);
    }
    BARRIER();
    float* weights = work.weights + 1ll * BLOCK * kParameters;
    if (work.begin == 0) {
        if (work.seeds) EACH(k, (kParameters + 3) / 4) draw_four(work.seeds[BLOCK], k, weights);
        EACH(k, kParameters) memory.first[k] = 0.0f, memory.second[k] = 0.0f;
        BARRIER();
    }
    const int n_train = shared.n_train;
    for (int step = work.begin; step < work.end; step++) {
        if (step == 0 || !work.frozen) convolve_all(work, weights, memory, shared);
        classify(work, weights, memory, shared);
        cross_entropy(work.n, n_train, memory);
        BARRIER();
        if (THREAD == 0)
            work.curves[1ll * BLOCK * work.steps + step] = mean_validation_loss(work.n, n_train, memory.losses);
        const float* adam = work.adam + 2 * step;
        backward_and_update(work, n_train, {weights, memory.first, memory.second, adam[0], adam[1]}, memory, shared);
    }
}
