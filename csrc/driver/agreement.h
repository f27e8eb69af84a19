// Compares what instruction sets compute. The row that runs first in a case is the reference: its numbers are kept, and
// those of the rows after it must be close to them.

#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "abi/fermt.h"

// Differences that are allowed, as shares of the largest reference number: by fermt_dtype of what is multiplied. In 16
// bits a gradient is made of an output that each row has rounded for itself, and some rows round inside, too.
constexpr double kProductTolerance[] = {5e-5, 1.0 / 8, 1.0 / 32};

// The number at `i` of an array of a fermt_dtype.
inline double number(const void* data, int64_t i, int64_t dtype) {
  if (dtype == FERMT_FLOAT32) {
    float value;
    std::memcpy(&value, static_cast<const float*>(data) + i, sizeof value);
    return value;
  }
  uint16_t half;
  std::memcpy(&half, static_cast<const uint16_t*>(data) + i, sizeof half);
  if (dtype == FERMT_BFLOAT16) {
    const uint32_t bits = static_cast<uint32_t>(half) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
  const int exponent = half >> 10 & 31, fraction = half & 1023;
  const double magnitude = exponent == 0    ? std::ldexp(fraction, -24)
                           : exponent == 31 ? (fraction ? NAN : INFINITY)
                                            : std::ldexp(1024 + fraction, exponent - 25);
  return half >> 15 ? -magnitude : magnitude;
}

class Agreement {
 public:
  void start_row(const char* row, bool is_reference) {
    row_ = row;
    if (is_reference) kept_.clear();
    is_reference_ = is_reference;
    next_ = 0;
  }
  bool is_reference() const { return is_reference_; }

  // Keeps the reference's result, or compares one with it; exits where it is not within `tolerance`.
  void check(const char* what, const void* data, int64_t count, int64_t dtype, double tolerance, double least = 0) {
    std::vector<double> numbers(count);
    for (int64_t i = 0; i < count; ++i) numbers[i] = number(data, i, dtype);
    if (is_reference_)
      kept_.push_back(std::move(numbers));
    else
      compare(what, numbers, kept_.at(next_++), tolerance, least);
  }

  // Exits unless all numbers are close to the truth's: their largest difference, as a share of the truth's largest, or
  // of `least` if that is more: the size of what a sum that cancels is made of.
  void compare(const char* what, const std::vector<double>& numbers, const std::vector<double>& truth, double tolerance,
               double least = 0) {
    double largest = least;
    for (double value : truth)
      if (std::isfinite(value)) largest = std::fmax(largest, std::fabs(value));
    for (size_t i = 0; i < truth.size(); ++i) {
      const double difference = std::fabs(numbers.at(i) - truth[i]);
      if (numbers[i] == truth[i] || (std::isnan(numbers[i]) && std::isnan(truth[i]))) continue;
      if (!(difference <= tolerance * largest)) {
        std::printf("%s, %s: number %zu of %zu is %.9g, expected %.9g, within %g of the largest, %.9g\n", row_, what, i,
                    truth.size(), numbers[i], truth[i], tolerance, largest);
        std::exit(1);
      }
      used_ = std::fmax(used_, difference / (tolerance * largest));
    }
    compared_ += static_cast<int64_t>(truth.size());
  }

  void report() const {
    std::printf("%lld numbers compared, differences of at most %.2f of what is allowed\n",
                static_cast<long long>(compared_), used_);
  }

 private:
  const char* row_ = "";
  bool is_reference_ = true;
  size_t next_ = 0;
  std::vector<std::vector<double>> kept_;
  int64_t compared_ = 0;
  double used_ = 0;
};
