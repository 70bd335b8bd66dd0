// Kernels that try the emulated device itself (check_device.py), in what the project's own do not
// use or do wrong. Rewritten and linked like these.
#include "probe.cuh"

namespace probe {
namespace {

// Template arguments and a launch within a template.
template <int kSum, bool kPlus, typename T>
__global__ void sum_kernel(const T* __restrict__ from, T* __restrict__ to) {
  __shared__ T parts[2][kSum];
  __shared__ __align__(16) T total;
  parts[1][kSum - 1] = from[0];
  total = parts[1][kSum - 1] + T(kSum);
  to[0] = kPlus ? total : T(0);
}

struct Large {
  char bytes[4097];
  void operator()() const {}
};

// A warp's and a block's functions, against what a loop says; blocks of 32 x 3 threads.
struct Functions {
  void operator()() const {
    const int lane = threadIdx.x, id = lane + 32 * threadIdx.y;
    const long long value = 100 + lane;
    const auto expect = [](bool fine) { CUDA_KERNEL_ASSERT(fine); };
    expect(
        __shfl_sync(~0u, value, 5) == 105 && __shfl_sync(~0u, value, 9, 8) == 101 + lane / 8 * 8);
    expect(__shfl_xor_sync(~0u, float(lane), 3) == (lane ^ 3));
    expect(__shfl_down_sync(~0u, lane, 2, 4) == (lane % 4 < 2 ? lane + 2 : lane));
    expect(__shfl_up_sync(~0u, lane, 1) == (lane == 0 ? 0 : lane - 1));
    expect(__ballot_sync(~0u, lane % 2) == 0xaaaaaaaa && __popc(0xf0u) == 4);
    expect(__any_sync(~0u, lane == 7) && !__all_sync(~0u, lane == 7) && __all_sync(~0u, 1));
    expect(__syncthreads_count(id % 3 == 0) == 32 && __syncthreads_or(id == 95));
    expect(!__syncthreads_and(id != 95) && !__syncthreads_or(0) && __syncthreads_and(2));
    if (lane < 16) {  // half a warp, twice, while the other half has not come
      expect(__shfl_xor_sync(0xffffu, lane, 1) == (lane ^ 1));
      expect(__shfl_xor_sync(0xffffu, lane, 2) == (lane ^ 2));
    }
    expect(__shfl_sync(~0u, lane, 31) == 31);
    __shared__ int sum;
    __shared__ unsigned long long most[2];
    if (id == 0) {
      sum = 0;
      most[1] = 0;
    }
    __syncthreads();
    atomicAdd(&sum, id);
    atomicMax(&most[1], static_cast<unsigned long long>(id));
    __syncthreads();
    expect(sum == 95 * 96 / 2 && most[1] == 95);
    expect(__uint_as_float(__float_as_uint(1.5f)) == 1.5f && __fmul_rn(2.f, 3.f) == 6);
  }
};

void templates() {
  double numbers[2] = {1, 0};
  const auto run = [&](auto* data) {
    sum_kernel<3, true><<<1, 1, 0, c10::cuda::getCurrentCUDAStream()>>>(data, data + 1);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  };
  run(numbers);
  TORCH_CHECK(numbers[1] == 4);
}

const Probes kProbes = {
    {"functions", [] { launch(dim3(2, 2), dim3(32, 3), Functions()); }},
    {"templates", templates},
    {"barrier after some have ended",
     [] {
       launch(1, 64, [] {
         if (threadIdx.x < 32) __syncthreads();
       });
     }},
    {"barriers of two places",
     [] {
       launch(1, 64, [] {
         if (threadIdx.x < 32)
           __syncthreads();
         else
           __syncthreads();
       });
     }},
    {"a warp waits for lanes at a barrier",
     [] {
       launch(1, 32, [] {
         if (threadIdx.x < 16)
           __syncthreads();
         else
           __any_sync(~0u, 1);
       });
     }},
    {"a shuffle from a lane that has ended",
     [] {
       launch(1, 32, [] {
         if (threadIdx.x < 31) __shfl_sync(~0u, 1, 31);
       });
     }},
    {"a mask without the lane", [] { launch(1, 32, [] { __any_sync(1u, 1); }); }},
    {"misaligned",
     [] {
       launch(1, 1, [] {
         numbers[0] = static_cast<int>(reinterpret_cast<const float4*>(numbers + 1)->x);
       });
     }},
    {"aligned",
     [] {
       launch(1, 32, [] {
         const int4 four = __ldg(reinterpret_cast<const int4*>(numbers) + threadIdx.x);
         __stcs(reinterpret_cast<int4*>(numbers + 2048) + threadIdx.x, make_int4(four.w, 0, 0, 1));
       });
     }},
    {"an assertion", [] { launch(2, 32, [] { CUDA_KERNEL_ASSERT(threadIdx.x < 31); }); }},
    {"too many parameters", [] { launch(1, 1, Large()); }},
    {"too high a grid", [] { launch(dim3(1, 65536), 1, [] {}); }},
    {"no block", [] { launch(0, 1, [] {}); }},
    {"too many threads", [] { launch(1, 1025, [] {}); }},
    {"no check",
     [] {
       run_kernel<<<1, 1>>>([] {});
       launch(1, 1, [] {});
     }},
};

}  // namespace
}  // namespace probe

// What has been wrong, or nothing.
extern "C" const char* cuda_on_host_probe(const char* name) {
  static std::string text;
  text.clear();
  try {
    auto probes = probe::memory_probes();
    probes.insert(probe::kProbes.begin(), probe::kProbes.end());
    probes.at(name)();
  } catch (const std::exception& error) {
    text = error.what();
  }
  return text.c_str();
}
