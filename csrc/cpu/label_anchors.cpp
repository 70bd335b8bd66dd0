// Before all includes, so that it holds for the formulas of matching.h too.
#pragma GCC optimize("fp-contract=off")

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <tuple>
#include <vector>

#include "cpu/anchor_chunks.h"
#include "cpu/vectorize.h"

namespace alwa_d2 {
namespace {

ALWA_CLONES Int<float> match(
    const Chunk<float>& chunk, const MatchBox<float>& gt, Int<float> g, Best<float>* best) {
  return match_chunk(chunk, gt, g, best);
}

ALWA_CLONES Int<double> match(
    const Chunk<double>& chunk, const MatchBox<double>& gt, Int<double> g, Best<double>* best) {
  return match_chunk(chunk, gt, g, best);
}

// An image's ground truth, without padding, and the labels and boxes of its anchors.
template <typename T>
struct Image {
  std::vector<MatchBox<T>> gts;       // (G,)
  std::vector<T> boxes;               // (G, 4)
  std::vector<int64_t> classes;       // (G,)
  std::vector<Int<T>> chunk_highest;  // (chunks, G), bits of the highest IoU in a chunk
  std::vector<Int<T>> highest;        // (G,), bits of the highest IoU of all chunks
  int64_t* out_labels;                // (R,)
  T* out_boxes;                       // (R, 4)

  // `own` are the boxes' classes, null where they are not known.
  Image(const at::Tensor& gt_boxes, const int64_t* own, size_t chunks) {
    const T* data = gt_boxes.const_data_ptr<T>();
    for (int64_t g = 0; g < gt_boxes.size(0); ++g) {
      if (own == nullptr || !is_padding(own[g])) {
        gts.push_back(match_box(data + 4 * g));
        boxes.insert(boxes.end(), data + 4 * g, data + 4 * g + 4);
        classes.push_back(own == nullptr ? 0 : own[g]);
      }
    }
    chunk_highest.resize(chunks * gts.size());
  }

  // Writes labels and boxes of chunk c, without low-quality matches. Returns the number of
  // foreground anchors.
  int64_t label(const Chunk<T>& chunk, int64_t c, const LabelRule<T>& rule) {
    const int64_t first = c * kChunk;
    if (gts.empty()) {
      std::fill_n(out_labels + first, chunk.size, rule.background);
      std::fill_n(out_boxes + 4 * first, 4 * chunk.size, T(0));
      return 0;
    }
    Best<T> best{};
    for (size_t g = 0; g < gts.size(); ++g) {
      if (chunk.may_overlap(gts[g])) {
        chunk_highest[c * gts.size() + g] = match(chunk, gts[g], g, &best);
      }
    }
    int64_t foreground = 0;
    for (int j = 0; j < chunk.size; ++j) {
      const Int<T> g = best.index[j];
      const int match = rule.match(best.iou[j]);
      out_labels[first + j] = rule.label(match, classes[g]);
      foreground += match == 1 && out_labels[first + j] != rule.background;
      std::copy_n(boxes.data() + 4 * g, 4, out_boxes + 4 * (first + j));
    }
    return foreground;
  }

  bool has_low_quality(int64_t c) const {
    for (size_t g = 0; g < gts.size(); ++g) {
      if (chunk_highest[c * gts.size() + g] == highest[g]) {
        return true;
      }
    }
    return false;
  }

  void find_highest(size_t chunks) {
    highest.resize(gts.size());
    for (size_t i = 0; i < chunks * gts.size(); ++i) {
      Int<T>& most = highest[i % gts.size()];
      most = std::max(most, chunk_highest[i]);
    }
  }

  // Makes those anchors of chunk c foreground that overlap a ground truth as much as any anchor
  // does: all anchors, for one that nothing overlaps. Returns how many were not foreground before.
  int64_t add_low_quality(const Chunk<T>& chunk, int64_t c, const LabelRule<T>& rule) {
    bool is_low_quality[kChunk] = {};
    for (size_t g = 0; g < gts.size(); ++g) {
      if (chunk_highest[c * gts.size() + g] == highest[g]) {
        for (int j = 0; j < chunk.size; ++j) {
          is_low_quality[j] |= bits_of(match_iou(gts[g], chunk.box(j))) == highest[g];
        }
      }
    }
    int64_t more = 0;
    for (int j = 0; j < chunk.size; ++j) {
      if (is_low_quality[j]) {
        more += label_low_quality(chunk.box(j), out_labels + c * kChunk + j, rule);
      }
    }
    return more;
  }

  // Makes an anchor foreground, and returns whether it was not before. It keeps the ground truth
  // that it overlaps most, of several the first, as in `match`.
  bool label_low_quality(
      const MatchBox<T>& anchor, int64_t* label, const LabelRule<T>& rule) const {
    T most = 0;
    size_t index = 0;
    for (size_t g = 0; g < gts.size(); ++g) {
      const T iou = match_iou(gts[g], anchor);
      index = iou > most ? g : index;
      most = iou > most ? iou : most;
    }
    *label = rule.own(classes[index]);
    return rule.match(most) != 1 && *label != rule.background;
  }
};

// Returns the number of foreground anchors. Each pass turns anchors into columns chunk by chunk:
// that is quicker than new memory for all of them. A thread takes at least 8 chunks, 4096 anchors.
template <typename T>
int64_t label_images(
    const at::Tensor& anchors, std::vector<Image<T>>& images, const LabelRule<T>& rule,
    bool allow_low_quality_matches) {
  const int64_t n = number_of_chunks(anchors);
  std::atomic<int64_t> foreground = 0;
  at::parallel_for(0, n, 8, [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c) {
      const Chunk<T> chunk(anchors, c);
      for (Image<T>& image : images) {
        foreground += image.label(chunk, c, rule);
      }
    }
  });
  if (!allow_low_quality_matches) {
    return foreground;
  }
  for (Image<T>& image : images) {
    image.find_highest(n);
  }
  at::parallel_for(0, n, 8, [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c) {
      for (Image<T>& image : images) {
        if (image.has_low_quality(c)) {
          foreground += image.add_low_quality(Chunk<T>(anchors, c), c, rule);
        }
      }
    }
  });
  return foreground;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> label_anchors_cpu(const LabelArguments& args) {
  check_label_anchors(args);
  const at::Tensor& anchors = args.anchors;
  const int64_t n = args.gt_boxes.size(), r = anchors.size(0);
  at::Tensor out_labels = at::empty({n, r}, anchors.options().dtype(at::kLong));
  at::Tensor out_boxes = at::empty({n, r, 4}, anchors.options());
  at::Tensor num_foreground = at::empty({}, anchors.options().dtype(at::kLong));
  AT_DISPATCH_FLOATING_TYPES(anchors.scalar_type(), "label_anchors", [&] {
    using T = scalar_t;
    const LabelRule<T> rule(args);
    const at::Tensor rows = anchors.contiguous();
    std::vector<Image<T>> images;
    for (int64_t i = 0; i < n; ++i) {
      const at::Tensor classes =
          args.gt_classes.empty() ? at::Tensor() : args.gt_classes[i].contiguous();
      images.emplace_back(
          args.gt_boxes[i].to(anchors.scalar_type()).contiguous(),
          classes.defined() ? classes.const_data_ptr<int64_t>() : nullptr,
          number_of_chunks(anchors));
      images[i].out_labels = out_labels.data_ptr<int64_t>() + i * r;
      images[i].out_boxes = out_boxes.data_ptr<T>() + i * r * 4;
    }
    *num_foreground.data_ptr<int64_t>() =
        label_images(rows, images, rule, args.allow_low_quality_matches);
  });
  return {out_labels, out_boxes, num_foreground};
}

TORCH_LIBRARY_IMPL(alwa_d2, CPU, m) {
  m.impl("label_anchors", &LabelEntry::call<&label_anchors_cpu>);
}

}  // namespace
}  // namespace alwa_d2
