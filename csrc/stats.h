#pragma once

#include <cstdint>
#include <limits>

#include "host_device.h"

namespace alwa_d2 {

// Count, sum, sum of squares, least and greatest of a series of losses, in float64. The ops return
// these five numbers, in this order, as statistics. A NaN reaches all of them but the count.
struct Stats {
  static constexpr int kSize = 5;

  double count = 0;
  double sum = 0;
  double sum_of_squares = 0;
  double min = std::numeric_limits<double>::infinity();
  double max = -std::numeric_limits<double>::infinity();

  ALWA_HOST_DEVICE void add(double x) { merge({1, x, x * x, x, x}); }

  ALWA_HOST_DEVICE void merge(const Stats& other) {
    count += other.count;
    sum += other.sum;
    sum_of_squares += other.sum_of_squares;
    min = (other.min < min || other.min != other.min) ? other.min : min;
    max = (other.max > max || other.max != other.max) ? other.max : max;
  }

  ALWA_HOST_DEVICE static Stats load(const double* values) {
    return {values[0], values[1], values[2], values[3], values[4]};
  }

  ALWA_HOST_DEVICE void store(double* values) const {
    values[0] = count;
    values[1] = sum;
    values[2] = sum_of_squares;
    values[3] = min;
    values[4] = max;
  }
};

}  // namespace alwa_d2
