// Quantiles of a stream in bounded memory, mergeable: DDSketch with a dense store that collapses its lowest buckets.
// Source: Masson, Rim, Lee: DDSketch, a fast and fully-mergeable quantile sketch with relative-error guarantees, PVLDB
// 12(12), 2019. Merging is adding counts, so slices of a window and replicas give what one sketch of all would give.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace sluice {

// A value. Thread-safety: thread-compatible. Memory: at most kMaxBuckets counts (8 KiB), as many as the range of the
// values needs: three decades take about 350.
//
// Bucket i holds the values in (g^(i-1), g^i], g = (1 + e) / (1 - e), e = kRelativeError; its middle 2 g^i / (g + 1) is
// within e of all of them. Values below kSmallest (negative ones too) count as 0; those above kLargest as kLargest.
// When the values span more than kMaxBuckets (nearly nine decades), the lowest buckets become one: quantiles in it are
// too large, all others keep their bound.
class Sketch {
 public:
  static constexpr double kRelativeError = 0.01;
  static constexpr size_t kMaxBuckets = 1024;
  static constexpr double kSmallest = 1e-9, kLargest = 1e15;

  void Add(double value, uint64_t count = 1);  // NaN is left out
  void Merge(const Sketch& other);

  uint64_t count() const { return count_; }
  double sum() const { return sum_; }
  double min() const { return min_; }  // 0 when empty, as max
  double max() const { return max_; }

  // The value of rank floor(q × (count - 1)), counted from 0, within kRelativeError. `q` is clamped to 0..1; 0 when
  // empty.
  double Quantile(double q) const;

  // The bucket that a value falls into, and its upper bound, which belongs to it. `value` at least kSmallest.
  static int BucketOf(double value);
  static double UpperBound(int bucket);
  // How many values lie in buckets above this one: exact, but for values in collapsed buckets.
  uint64_t CountAbove(int bucket) const;

  // All that a sketch is, for files and messages: buckets by rising index, without empty ones.
  struct Form {
    uint64_t zeros = 0;
    double sum = 0, min = 0, max = 0;
    std::vector<std::pair<int32_t, uint64_t>> buckets;

    bool operator==(const Form&) const = default;
  };
  Form ToForm() const;
  // Takes any form, also a damaged one: indexes out of range are clamped, the bounds on memory hold.
  static Sketch FromForm(const Form& form);

 private:
  void AddBucket(int index, uint64_t count);

  int lowest_ = 0;                 // index of buckets_[0]
  std::vector<uint64_t> buckets_;  // at most kMaxBuckets
  uint64_t zeros_ = 0, count_ = 0;
  double sum_ = 0, min_ = 0, max_ = 0;
};

}  // namespace sluice
