#pragma once

#define C10_CUDA_CHECK(call) TORCH_CHECK((call) == cudaSuccess, #call)
#define C10_CUDA_KERNEL_LAUNCH_CHECK() ::cuda_on_host::launch_checked()
