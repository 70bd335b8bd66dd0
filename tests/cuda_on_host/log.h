#pragma once

namespace cuda_on_host {

// For whoever asks what an op has done.
void log_line(const char* kind, const char* name);

}  // namespace cuda_on_host
