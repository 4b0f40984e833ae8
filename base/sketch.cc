#include "base/sketch.h"

#include <algorithm>
#include <cmath>

namespace sluice {
namespace {

constexpr double kGamma = (1 + Sketch::kRelativeError) / (1 - Sketch::kRelativeError);
const double kInverseLogGamma = 1 / std::log(kGamma);

int IndexOf(double value) { return static_cast<int>(std::ceil(std::log(value) * kInverseLogGamma)); }
double ValueOf(int index) { return 2 * std::pow(kGamma, index) / (kGamma + 1); }

}  // namespace

void Sketch::AddBucket(int index, uint64_t count) {
  constexpr int kMax = static_cast<int>(kMaxBuckets);
  const int size = static_cast<int>(buckets_.size());
  if (size == 0) {
    lowest_ = index;
    buckets_.push_back(count);
    return;
  }
  const int highest = lowest_ + size - 1;
  if (index < lowest_) {
    index = std::max(index, highest - kMax + 1);  // below it: the lowest bucket that there may be
    buckets_.insert(buckets_.begin(), static_cast<size_t>(std::max(0, lowest_ - index)), 0);
    lowest_ = std::min(lowest_, index);
  } else if (index > highest) {
    const int lowest = std::max(lowest_, index - kMax + 1);
    uint64_t collapsed = 0;
    const auto end = buckets_.begin() + std::min(size, lowest - lowest_);
    for (auto it = buckets_.begin(); it != end; ++it) collapsed += *it;
    buckets_.erase(buckets_.begin(), end);
    buckets_.resize(static_cast<size_t>(index - lowest + 1), 0);
    buckets_[0] += collapsed;
    lowest_ = lowest;
  }
  buckets_[static_cast<size_t>(index - lowest_)] += count;
}

void Sketch::Add(double value, uint64_t count) {
  if (std::isnan(value) || count == 0) return;
  value = value < kSmallest ? 0 : std::min(value, kLargest);
  min_ = count_ == 0 ? value : std::min(min_, value);
  max_ = count_ == 0 ? value : std::max(max_, value);
  count_ += count;
  sum_ += value * static_cast<double>(count);
  if (value == 0) {
    zeros_ += count;
  } else {
    AddBucket(IndexOf(value), count);
  }
}

void Sketch::Merge(const Sketch& other) {
  if (other.count_ == 0) return;
  min_ = count_ == 0 ? other.min_ : std::min(min_, other.min_);
  max_ = count_ == 0 ? other.max_ : std::max(max_, other.max_);
  zeros_ += other.zeros_;
  count_ += other.count_;
  sum_ += other.sum_;
  if (other.buckets_.empty()) return;
  const int size = static_cast<int>(other.buckets_.size());
  AddBucket(other.lowest_ + size - 1, 0);  // the ends first, so that the store grows once
  AddBucket(other.lowest_, 0);
  for (int i = 0; i < size; ++i) {
    const int at = std::max(0, other.lowest_ + i - lowest_);
    buckets_[static_cast<size_t>(at)] += other.buckets_[static_cast<size_t>(i)];
  }
}

double Sketch::Quantile(double q) const {
  if (count_ == 0) return 0;
  const auto rank = static_cast<uint64_t>(std::clamp(q, 0.0, 1.0) * static_cast<double>(count_ - 1));
  uint64_t seen = zeros_;
  if (rank < seen) return 0;
  for (size_t i = 0; i < buckets_.size(); ++i) {
    seen += buckets_[i];
    if (rank < seen) return std::clamp(ValueOf(lowest_ + static_cast<int>(i)), min_, max_);
  }
  return max_;
}

int Sketch::BucketOf(double value) { return IndexOf(std::clamp(value, kSmallest, kLargest)); }

double Sketch::UpperBound(int bucket) { return std::pow(kGamma, bucket); }

uint64_t Sketch::CountAbove(int bucket) const {
  uint64_t count = 0;
  for (auto i = static_cast<size_t>(std::max(0, bucket + 1 - lowest_)); i < buckets_.size(); ++i) count += buckets_[i];
  return count;
}

Sketch::Form Sketch::ToForm() const {
  Form form{.zeros = zeros_, .sum = sum_, .min = min_, .max = max_};
  for (size_t i = 0; i < buckets_.size(); ++i) {
    if (buckets_[i] != 0) form.buckets.emplace_back(lowest_ + static_cast<int>(i), buckets_[i]);
  }
  return form;
}

Sketch Sketch::FromForm(const Form& form) {
  static const int kLowestIndex = IndexOf(kSmallest), kHighestIndex = IndexOf(kLargest);
  Sketch out;
  out.zeros_ = out.count_ = form.zeros;
  for (const auto& [index, count] : form.buckets) {
    if (count == 0) continue;
    out.AddBucket(std::clamp(static_cast<int>(index), kLowestIndex, kHighestIndex), count);
    out.count_ += count;
  }
  if (out.count_ == 0) return out;
  out.sum_ = std::isfinite(form.sum) ? form.sum : 0;
  out.min_ = form.min >= 0 ? std::min(form.min, kLargest) : 0;
  out.max_ = form.max >= out.min_ ? std::min(form.max, kLargest) : kLargest;
  return out;
}

}  // namespace sluice
