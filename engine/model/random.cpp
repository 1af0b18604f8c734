#include "engine/model/random.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace assay {
namespace {

double to_unit(uint32_t word) {
  return (static_cast<double>(word) + 0.5) * 0x1p-32;
}

uint64_t fnv1a(std::string_view text) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  return hash;
}

// Two pairs of independent normals from the four words of a block.
std::array<double, 4> normal_block(const std::array<uint32_t, 4>& words) {
  std::array<double, 4> values;
  for (size_t pair = 0; pair < 4; pair += 2) {
    const double radius = std::sqrt(-2.0 * std::log(to_unit(words[pair])));
    const double angle = 2.0 * std::numbers::pi * to_unit(words[pair + 1]);
    values[pair] = radius * std::cos(angle);
    values[pair + 1] = radius * std::sin(angle);
  }
  return values;
}

}  // namespace

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> c, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = 0xD2511F53ull * c[0], b = 0xCD9E8D57ull * c[2];
    c = {static_cast<uint32_t>(b >> 32) ^ c[1] ^ key[0], static_cast<uint32_t>(b),
         static_cast<uint32_t>(a >> 32) ^ c[3] ^ key[1], static_cast<uint32_t>(a)};
    key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};
  }
  return c;
}

RandomStream::RandomStream(int64_t seed, std::string_view name) : stream_(fnv1a(name)) {
  const auto bits = static_cast<uint64_t>(seed);
  key_ = {static_cast<uint32_t>(bits), static_cast<uint32_t>(bits >> 32)};
}

std::array<uint32_t, 4> RandomStream::block(int64_t index) const {
  const auto i = static_cast<uint64_t>(index);
  return philox({static_cast<uint32_t>(i), static_cast<uint32_t>(i >> 32), static_cast<uint32_t>(stream_),
                 static_cast<uint32_t>(stream_ >> 32)},
                key_);
}

double RandomStream::uniform(int64_t index) const {
  return to_unit(block(index / 4)[static_cast<size_t>(index % 4)]);
}

double RandomStream::normal(int64_t index) const {
  const std::array<double, 4> values = normal_block(block(index / 4));
  return values[static_cast<size_t>(index % 4)];
}

void RandomStream::fill_uniform(int64_t first, int64_t n, double* values) const {
#pragma omp parallel for schedule(static)
  for (int64_t at = 0; at < n; at += 4) {
    const auto words = block((first + at) / 4);
    for (int64_t i = at; i < std::min(at + 4, n); ++i) values[i] = to_unit(words[static_cast<size_t>(i - at)]);
  }
}

void RandomStream::fill_normal(int64_t first, int64_t n, double* values) const {
#pragma omp parallel for schedule(static)
  for (int64_t at = 0; at < n; at += 4) {
    const auto normals = normal_block(block((first + at) / 4));
    for (int64_t i = at; i < std::min(at + 4, n); ++i) values[i] = normals[static_cast<size_t>(i - at)];
  }
}

}  // namespace assay
