// Quantiles of repeated predictions. NumPy twin: gpu_patch/_numpy/quantiles.py.
//
// A thread sorts all samples of a value, where they lie, by merge exchange (Knuth, The Art of
// Computer Programming 3, 5.2.2, algorithm M): every thread compares the same places, so that
// neighbouring threads read neighbouring values.

struct QuantilesJob {
    int64 n_values;  // of a sample
    int64 n_pixels;  // of a plane
    int n_samples, n_quantiles;
    int top;         // the largest power of two below n_samples
    int unused;
};

// Which two of the sorted values a quantile lies between, and how far from the lower one.
struct Quantile {
    int lower;
    float weight;
};

#ifdef __CUDACC__
__device__ __forceinline__ float smaller(float a, float b) { EXACTLY("min") }
__device__ __forceinline__ float larger(float a, float b) { EXACTLY("max") }
#else
inline float smaller(float a, float b) { return b < a ? b : a; }
inline float larger(float a, float b) { return a < b ? b : a; }
#endif

extern "C" __global__ __launch_bounds__(256)
void quantiles(const QuantilesJob* __restrict__ job, const Quantile* __restrict__ wanted,
               float* __restrict__ samples, float* __restrict__ out) {
    const int64 n_values = job->n_values;
    const int64 i = static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= n_values) return;
    float* const column = samples + i;
    const int n = job->n_samples;
    bool has_nan = false;
    for (int at = 0; at < n; ++at) {
        const float value = column[at * n_values];
        has_nan |= value != value;
    }
    for (int p = job->top; p; p /= 2) {
        int q = job->top, remainder = 0, apart = p;
        while (true) {
            for (int at = 0; at + apart < n; ++at) {
                if ((at & p) != remainder) continue;
                const float first = column[at * n_values];
                const float second = column[(at + apart) * n_values];
                column[at * n_values] = smaller(first, second);
                column[(at + apart) * n_values] = larger(first, second);
            }
            if (q == p) break;
            apart = q - p;
            q /= 2;
            remainder = p;
        }
    }
    const int64 plane = i / job->n_pixels, pixel = i % job->n_pixels;
    for (int k = 0; k < job->n_quantiles; ++k) {
        const int lower = wanted[k].lower;
        const float weight = wanted[k].weight;
        const float low = column[lower * n_values];
        const float high = column[(lower + 1 < n ? lower + 1 : lower) * n_values];
        float value = low;
        // bits, since subnormal numbers are compared as 0
        if (__float_as_int(weight) && __float_as_int(low) != __float_as_int(high))
            value = add_rn(mul_rn(low, sub_rn(1.0f, weight)), mul_rn(high, weight));
        if (has_nan) value = __int_as_float(0x7fc00000);
        // 0 for −0, of which sorting tells neither
        out[(plane * job->n_quantiles + k) * job->n_pixels + pixel] = add_rn(value, 0.0f);
    }
}
