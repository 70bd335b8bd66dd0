// Kernels that try shared memory, and races, on the emulated device (check_device.py).
#include "probe.cuh"

namespace probe {

Probes memory_probes() {
  return {
      {"much shared memory",
       [] {
         launch(1, 1, [] {
           __shared__ double a[6144];
           __shared__ char b;
           b = a[0] > 0;
         });
       }},
      {"shared memory beyond its end",
       [] {
         launch(1, 32, [] {
           __shared__ int a[31];
           int* first = a;
           first[threadIdx.x] = 1;
         });
       }},
      {"shared memory without a barrier",
       [] {
         launch(1, 64, [] {
           __shared__ int a[64];
           a[threadIdx.x] = 1;
           numbers[threadIdx.x] = a[63 - threadIdx.x];
         });
       }},
      {"shared memory behind __syncwarp",
       [] {
         launch(2, 64, [] {
           __shared__ short a[64];
           a[threadIdx.x] = 1;
           __syncwarp();
           numbers[threadIdx.x + 64 * blockIdx.x] = a[threadIdx.x ^ 31];
           __syncwarp();
           a[threadIdx.x ^ 31] = 2;
         });
       }},
      {"__syncwarp between two warps",
       [] {
         launch(1, 64, [] {
           __shared__ int a[64];
           a[threadIdx.x] = 1;
           __syncwarp();
           numbers[threadIdx.x] = a[63 - threadIdx.x];
         });
       }},
      {"a vote is no barrier",
       [] {
         launch(1, 32, [] {
           __shared__ int a[32];
           a[threadIdx.x] = 1;
           __any_sync(~0u, 1);
           numbers[threadIdx.x] = a[31 - threadIdx.x];
         });
       }},
      {"blocks write one number", [] { launch(2, 1, [] { numbers[7] = 1; }); }},
      {"a block reads what another has written",
       [] {
         launch(2, 1, [] {
           if (blockIdx.x == 0)
             numbers[7] = 1;
           else
             numbers[8] = numbers[7];
         });
       }},
      {"blocks add to one number", [] { launch(9, 40, [] { atomicAdd(numbers + 7, 1); }); }},
      {"an atomic and a plain one",
       [] {
         launch(2, 1, [] {
           if (blockIdx.x == 0)
             atomicAdd(numbers + 7, 1);
           else
             numbers[7] = 1;
         });
       }},
      {"threads write bytes side by side",
       [] {
         launch(1, 64, [] {
           auto* bytes = reinterpret_cast<char*>(numbers);
           bytes[threadIdx.x] = static_cast<char>(bytes[threadIdx.x] + 1);
           __syncthreads();
           numbers[64 + threadIdx.x] = numbers[threadIdx.x / 4];
         });
       }},
      {"a wide load meets a narrow store",
       [] {
         launch(1, 2, [] {
           if (threadIdx.x == 0)
             reinterpret_cast<char*>(numbers)[13] = 1;
           else
             numbers[64] = reinterpret_cast<const int4*>(numbers)->w;
         });
       }},
  };
}

}  // namespace probe
