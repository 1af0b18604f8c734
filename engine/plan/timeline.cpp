#include "engine/plan/timeline.h"

#include <cassert>

namespace assay {

void Timeline::keep(const std::string& name, size_t bytes) {
  kept_.push_back(buffers_.size());
  buffers_.push_back({name, bytes, 0, 0, 0});
}

void Timeline::begin(const std::string& name, size_t bytes) {
  [[maybe_unused]] const bool fresh = open_.emplace(name, buffers_.size()).second;
  assert(fresh);
  buffers_.push_back({name, bytes, now_, now_, 0});
}

void Timeline::end(const std::string& name) {
  const auto found = open_.find(name);
  assert(found != open_.end());
  buffers_[found->second].last = now_;
  open_.erase(found);
}

std::vector<PlannedBuffer> Timeline::finish() {
  for (const auto& [name, index] : open_) buffers_[index].last = now_;
  for (size_t index : kept_) buffers_[index].last = now_;
  open_.clear();
  return std::move(buffers_);
}

}  // namespace assay
