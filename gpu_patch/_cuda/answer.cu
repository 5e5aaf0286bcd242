// What leaves a slab: values taken back, scaled, rounded, or the number of the largest channel.
// NumPy twin: gpu_patch/_numpy/answer.py.
//
// A block makes PER_BLOCK pixels of a plane, and says in a byte whether one of them cannot be held.
// OUT_TYPE is the data type of what is made; ARGMAX says that it is the number of the plane that has
// the largest value, of equal ones the first.

constexpr int PER_BLOCK = 4096;

struct AnswerJob {
    int64 n_pixels;  // of a plane that is made
    int64 run;       // of them, that are neighbours in the slab too
    int64 pitch;     // from such a run to the next, in the slab
    int64 first;     // where the first run begins in a plane of the slab
    int64 plane;     // pixels of a plane of the slab
    int n_planes;    // of the slab
    unsigned n_blocks;  // of a plane that is made
    float offset;       // subtracted from what is stored,
    float factor;       // before it is multiplied
    int is_scaled;      // whether either is wanted
    int unused;
};

#ifdef __CUDACC__
__device__ __forceinline__ float nearest(float value) { return rintf(value); }
#else
inline float nearest(float value) { return std::nearbyint(value); }
#endif

// Of whole numbers the smallest and the largest.
template <int TYPE> struct Limits;
template <> struct Limits<UINT8> { static constexpr int LOW = 0, HIGH = 255; };
template <> struct Limits<INT8> { static constexpr int LOW = -128, HIGH = 127; };
template <> struct Limits<UINT16> { static constexpr int LOW = 0, HIGH = 65535; };
template <> struct Limits<INT16> { static constexpr int LOW = -32768, HIGH = 32767; };

// A whole number that is larger where a value is, of subnormal ones too, which CUDA compares as 0.
__device__ __forceinline__ int rank_of(float value) {
    const int bits = __float_as_int(add_rn(value, 0.0f));  // of −0 as of 0
    return bits ^ (bits >> 31 & 0x7fffffff);
}

// Values of a pixel of the slab.
struct Pixel {
    const AnswerJob* job;
    const float* values;   // in the first plane
    const float* factors;  // and summands behind them, of each plane; null where there are none
    const float* centers;

    __device__ __forceinline__ float operator()(int plane) const {
        float value = __ldg(values + plane * job->plane);
        if (factors)
            value = add_rn(mul_rn(value, __ldg(factors + plane)),
                           __ldg(factors + job->n_planes + plane));
        return centers ? add_rn(value, __ldg(centers + plane)) : value;
    }
};

// Stores a value; tells whether it could not be.
template <int TYPE>
__device__ __forceinline__ bool put(void* out, int64 at, float value) {
    if constexpr (TYPE == FLOAT32 || TYPE == FLOAT16) {
        store(out, at, value, TYPE == FLOAT16);
        return false;
    } else {
        const float low = Limits<TYPE>::LOW, high = Limits<TYPE>::HIGH;
        const bool is_bad = !(value - value == 0.0f);
        const float rounded = is_bad ? 0.0f : nearest(value);
        static_cast<typename Stored<TYPE>::Raw*>(out)[at] =
            static_cast<typename Stored<TYPE>::Raw>(
                static_cast<int>(rounded < low ? low : rounded > high ? high : rounded));
        return is_bad;
    }
}

// left to itself the compiler spills, to have more blocks at a time
extern "C" __global__ __launch_bounds__(256, 4)
void answer(const AnswerJob* __restrict__ job, const float* __restrict__ slab,
            const float* __restrict__ factors, const float* __restrict__ centers,
            void* __restrict__ out, unsigned char* __restrict__ flags) {
    DYNAMIC_SHARED(int, shared);
#if !ARGMAX
    const int plane = static_cast<int>(blockIdx.x / job->n_blocks);
#endif
    const int64 begin = static_cast<int64>(blockIdx.x % job->n_blocks) * PER_BLOCK;
    const int64 stop = min(begin + PER_BLOCK, job->n_pixels);
    int is_bad = 0;
    for (int64 i = begin + threadIdx.x; i < stop; i += blockDim.x) {
        const int64 run = job->run == job->n_pixels ? 0 : i / job->run;
        const Pixel pixel = {job, slab + job->first + run * (job->pitch - job->run) + i, factors,
                             centers};
#if ARGMAX
        const float before = pixel(0);
        int best = rank_of(before), number = 0;
        is_bad |= before != before;
        for (int other = 1; other < job->n_planes; ++other) {
            const float value = pixel(other);
            is_bad |= value != value;
            const int rank = rank_of(value);
            if (rank > best) {
                best = rank;
                number = other;
            }
        }
        static_cast<Stored<OUT_TYPE>::Raw*>(out)[i] = static_cast<Stored<OUT_TYPE>::Raw>(number);
#else
        float value = pixel(plane);
        if (job->is_scaled) value = mul_rn(sub_rn(value, job->offset), job->factor);
        is_bad |= put<OUT_TYPE>(out, plane * job->n_pixels + i, value);
#endif
    }
    shared[threadIdx.x] = is_bad;
    for (unsigned half = blockDim.x / 2; half; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) shared[threadIdx.x] |= shared[threadIdx.x + half];
    }
    if (threadIdx.x == 0) flags[blockIdx.x] = static_cast<unsigned char>(shared[0]);
}
