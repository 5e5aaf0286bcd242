// Mean and standard deviation of repeated predictions. NumPy twin: gpu_patch/_numpy/moments.py.
//
// A block adds PER_BLOCK values of one tile to their means and sums of squared deviations.
// VALUE_TYPE is the data type of the values.

constexpr int PER_BLOCK = 4096;

struct MomentsJob {
    int64 n_values;     // of a tile
    unsigned n_blocks;  // per tile
    int number;         // of this sample, from 1 on
    int n_samples;
};

#ifdef __CUDACC__
__device__ __forceinline__ float div_rn(float a, float b) { EXACTLY("div.rn") }
__device__ __forceinline__ float sqrt_rn(float a) {
    float result;
    asm("sqrt.rn.f32 %0, %1;" : "=f"(result) : "f"(a));
    return result;
}
#else
inline float div_rn(float a, float b) { return a / b; }
inline float sqrt_rn(float a) { return std::sqrt(a); }
#endif

// left to itself the compiler spills, to have more blocks at a time
extern "C" __global__ __launch_bounds__(256, 4)
void add_sample(const MomentsJob* __restrict__ job, const void* __restrict__ values,
                float* __restrict__ moments) {
    const int64 tile = blockIdx.x / job->n_blocks, n_values = job->n_values;
    const int64 first = static_cast<int64>(blockIdx.x % job->n_blocks) * PER_BLOCK;
    const int64 stop = min(first + PER_BLOCK, n_values);
    const int number = job->number;
    for (int64 i = first + threadIdx.x; i < stop; i += blockDim.x) {
        const float value = load<VALUE_TYPE>(values, tile * n_values + i);
        float* mean = moments + 2 * tile * n_values + i;
        float* spread = mean + n_values;
        float sum = 0.0f;
        if (number == 1) {
            *mean = value;
        } else {
            const float deviation = sub_rn(value, *mean);
            const float moved = add_rn(*mean, div_rn(deviation, number));
            *mean = moved;
            sum = add_rn(*spread, mul_rn(sub_rn(value, moved), deviation));
        }
        if (number == job->n_samples) sum = sqrt_rn(div_rn(sum, number - 1));
        *spread = sum;
    }
}
