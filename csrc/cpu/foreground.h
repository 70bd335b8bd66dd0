#pragma once

#include <cstdint>

#include "box_loss.h"

namespace alwa_d2 {

// Writes which of the anchors begin .. end are foreground, counted from `begin`; how many there
// are.
int64_t find_foreground(
    const IsForeground& is_foreground, int64_t begin, int64_t end, int32_t* indices);

}  // namespace alwa_d2
