// The focal loss on the CPU without tensors: rows anchors of k classes, again and again. What it
// executes is counted by test_instruction_count.py.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "cpu/focal_loops.h"
#include "cpu/sum_loops.h"

int main(int, char** argv) {
  using namespace alwa_d2;
  const int64_t repeats = std::atoll(argv[1]), rows = std::atoll(argv[2]), k = std::atoll(argv[3]);
  std::vector<float> logits(rows * k, -4.6f), losses(rows * k), gradients(rows * k), sums(rows);
  std::vector<int64_t> labels(rows, k);
  std::vector<int32_t> others(rows);
  const Focal<float> focal(0.25, 2);
  double total = 0;
  for (int64_t i = 0; i < repeats; ++i) {
    total += find_others(labels.data(), rows, k, others.data());
    focal_terms(
        focal, logits.data(), rows * k, 0.01f, losses.data(), gradients.data(),
        {logits.data(), gradients.data()});
    sums_of_rows(losses.data(), rows, k, 0.75f, sums.data());
    total += stats_of_anchors(sums.data(), labels.data(), rows).sum;
  }
  std::printf("%g\n", total);
}
