// Sums of tiles to means and standard deviations. NumPy twin: gpu_patch/_numpy/accumulate.py.
//
// A thread makes a pixel of a channel. How many tiles were summed there is computed: along each axis
// those that count. SQUARES says that sums of squares follow the sums.

struct MeansJob {
    int64 slab_size[3];  // of the ring that holds the sums
    int64 in_slab[3];    // where the first pixel is in it
    int64 size[3];       // of the means
    int64 at[3];         // pixel of the image that is the first
    const int* first[3];
    const int* stop[3];
    int64 n_channels, n_samples;
};

#ifdef __CUDACC__
// Keeps subnormal numbers, which a cast under -ftz=true would not.
__device__ __forceinline__ float narrow(double value) {
    float result;
    asm("cvt.rn.f32.f64 %0, %1;" : "=f"(result) : "d"(value));
    return result;
}
__device__ __forceinline__ double root(double value) {
    double result;
    asm("sqrt.rn.f64 %0, %1;" : "=d"(result) : "d"(value));
    return result;
}
#else
inline float narrow(double value) { return static_cast<float>(value); }
inline double root(double value) { return std::sqrt(value); }
#endif

extern "C" __global__ __launch_bounds__(256)
void means(const MeansJob* __restrict__ job, const double* __restrict__ sums,
           float* __restrict__ out) {
    const int64 n_pixels = job->size[0] * job->size[1] * job->size[2];
    const int64 i = static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= n_pixels * job->n_channels) return;
    const int64 channel = i / n_pixels, pixel = i % n_pixels;
    const int64 place[3] = {pixel / (job->size[1] * job->size[2]),
                            pixel / job->size[2] % job->size[1], pixel % job->size[2]};
    double count = static_cast<double>(job->n_samples);
    int64 from = channel;
#pragma unroll
    for (int axis = 0; axis < 3; ++axis) {
        const int64 at = job->at[axis] + place[axis];
        count *= job->stop[axis][at] - job->first[axis][at];
        from = from * job->slab_size[axis] + job->in_slab[axis] + place[axis];
    }
    const double sum = sums[from];
    out[i] = narrow(sum / count);
#if SQUARES
    const int64 to_squares =
        job->n_channels * job->slab_size[0] * job->slab_size[1] * job->slab_size[2];
    const double spread = sums[from + to_squares] - sum * sum / count;
    const double others = count > 1 ? count - 1 : 1;
    out[i + n_pixels * job->n_channels] = narrow(root((spread < 0 ? 0 : spread) / others));
#endif
}
