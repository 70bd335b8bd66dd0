#pragma once

#include <cstdint>

#include "box_loss.h"

namespace alwa_d2 {

// Writes the indices, counted from `begin`, of the foreground among the anchors begin .. end.
// Returns how many there are.
int64_t find_foreground(
    const IsForeground& is_foreground, int64_t begin, int64_t end, int32_t* indices);

}  // namespace alwa_d2
