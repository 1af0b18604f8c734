#include "engine/data/loader.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <span>

#include "base/file.h"
#include "base/limits.h"
#include "base/unique_handle.h"

namespace assay {
namespace {

// One shard's file, mapped read-only for as long as this lives.
class MappedShard {
 public:
  MappedShard(std::string path, void* memory, size_t bytes) : path_(std::move(path)), memory_(memory), bytes_(bytes) {}
  MappedShard(MappedShard&& other) noexcept
      : path_(std::move(other.path_)), memory_(std::exchange(other.memory_, nullptr)), bytes_(other.bytes_) {}
  MappedShard& operator=(MappedShard&&) = delete;
  ~MappedShard() {
    if (memory_ != nullptr) ::munmap(memory_, bytes_);
  }
  std::span<const uint16_t> tokens() const {
    const char* body = static_cast<const char*>(memory_) + shard_header_bytes;
    return {reinterpret_cast<const uint16_t*>(body), (bytes_ - shard_header_bytes) / sizeof(uint16_t)};
  }
  // The file's name, made printable: it becomes a key in a checkpoint's JSON, and a name may hold any byte.
  std::string name() const {
    const std::string quoted = fmt::format("{:?}", std::filesystem::path(path_).filename().string());
    return quoted.substr(1, quoted.size() - 2);
  }
  std::string fingerprint() const;

 private:
  std::string path_;
  void* memory_;
  size_t bytes_;
};

// Loader::identity() for one shard. A shard no longer than all blocks together is read whole.
std::string MappedShard::fingerprint() const {
  constexpr size_t blocks = limits::fingerprint_blocks, block_bytes = limits::fingerprint_block_bytes;
  const std::span<const uint16_t> all = tokens();
  const std::string_view body(reinterpret_cast<const char*>(all.data()), all.size_bytes());
  uint32_t crc = 0;
  if (body.size() <= blocks * block_bytes) {
    crc = crc32(body);
  } else {
    for (size_t i = 0; i < blocks; ++i)
      crc = crc32(body.substr((body.size() - block_bytes) * i / (blocks - 1), block_bytes), crc);
  }
  return fmt::format("{} tokens, CRC-32 {:08x}", all.size(), crc);
}

Result<MappedShard> map_shard(const ShardInfo& shard) {
  UniqueFd fd(::open(shard.path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return system_error("open token shard", shard.path);
  const size_t bytes = shard_header_bytes + static_cast<size_t>(shard.tokens) * sizeof(uint16_t);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0 || static_cast<size_t>(info.st_size) != bytes)
    return Error{ErrorCode::data_loss,
                 fmt::format("token shard {} has {} bytes instead of {}: it changed while it was being "
                             "opened",
                             shard.path, info.st_size, bytes)};
  void* memory = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (memory == MAP_FAILED)
    return Error{ErrorCode::internal,
                 fmt::format("cannot map {} bytes of token shard {}: {}", bytes, shard.path, std::strerror(errno))};
  ::madvise(memory, bytes, MADV_SEQUENTIAL);  // only advice: reading works without it
  return MappedShard(shard.path, memory, bytes);
}

class MappedLoader final : public Loader {
 public:
  MappedLoader(std::vector<MappedShard> shards, int64_t sequence_len, int64_t device_batch, int rank, int world_size)
      : shards_(std::move(shards)),
        rank_tokens_(sequence_len * device_batch),
        rank_offset_(rank_tokens_ * rank),
        stride_(rank_tokens_ * world_size) {
    for (const MappedShard& shard : shards_) {
      starts_.push_back(total_);
      total_ += static_cast<int64_t>(shard.tokens().size());
    }
  }

  // Windows of one rank follow one another, each starting at the last target of the one before: so they are one range.
  void next(int32_t* tokens, int32_t* targets) override {
    const int64_t begin = cursor_.position + rank_offset_;
    copy(begin, tokens);
    std::copy(tokens + 1, tokens + rank_tokens_, targets);
    targets[rank_tokens_ - 1] = token_at(begin + rank_tokens_);
    largest_ = std::max(largest_, *std::max_element(tokens, tokens + rank_tokens_));
    largest_ = std::max(largest_, targets[rank_tokens_ - 1]);
    seek({cursor_.position + stride_, cursor_.epoch});
  }

  LoaderCursor cursor() const override { return cursor_; }

  void seek(const LoaderCursor& cursor) override {
    cursor_ = cursor;
    if (cursor_.position < 0) cursor_.position = 0;
    if (cursor_.position > total_ - stride_ - 1) cursor_ = {0, cursor.epoch + 1};
  }

  CorpusIdentity identity() const override {
    CorpusIdentity identity;
    for (const MappedShard& shard : shards_) identity[shard.name()] = shard.fingerprint();
    return identity;
  }

  int32_t largest_token_seen() const override { return largest_; }

 private:
  size_t shard_of(int64_t position) const {
    return static_cast<size_t>(std::upper_bound(starts_.begin(), starts_.end(), position) - starts_.begin()) - 1;
  }

  int32_t token_at(int64_t position) const {
    const size_t shard = shard_of(position);
    return shards_[shard].tokens()[static_cast<size_t>(position - starts_[shard])];
  }

  // rank_tokens_ tokens from `begin` on, over shard boundaries.
  void copy(int64_t begin, int32_t* out) const {
    int64_t left = rank_tokens_;
    for (size_t shard = shard_of(begin); left > 0; ++shard) {
      auto tokens = shards_[shard].tokens().subspan(static_cast<size_t>(begin - starts_[shard]));
      tokens = tokens.first(std::min(tokens.size(), static_cast<size_t>(left)));
      out = std::copy(tokens.begin(), tokens.end(), out);
      begin += static_cast<int64_t>(tokens.size());
      left -= static_cast<int64_t>(tokens.size());
    }
  }

  std::vector<MappedShard> shards_;
  std::vector<int64_t> starts_;  // position of each shard's first token in the stream
  int64_t total_ = 0;
  const int64_t rank_tokens_;  // tokens one rank takes per micro-batch
  const int64_t rank_offset_;  // of this rank's windows from rank 0's
  const int64_t stride_;       // tokens all ranks take per micro-batch
  LoaderCursor cursor_;
  int32_t largest_ = 0;
};

}  // namespace

std::string micro_batch_need(int64_t ranks, int64_t device_batch, int64_t sequence_len) {
  return fmt::format(
      "one micro-batch needs {} (devices * train.device_batch * model.sequence_len = {} * {} * {}, and the "
      "last target)",
      micro_batch_tokens(ranks, device_batch, sequence_len), ranks, device_batch, sequence_len);
}

Result<std::unique_ptr<Loader>> Loader::open(const std::vector<ShardInfo>& shards, int64_t sequence_len,
                                             int64_t device_batch, int rank, int world_size) {
  if (sequence_len < 1 || device_batch < 1 || world_size < 1 || rank < 0 || rank >= world_size)
    return Error{ErrorCode::invalid_argument,
                 fmt::format("cannot load batches of {} sequences of {} tokens for rank {} of {}", device_batch,
                             sequence_len, rank, world_size)};
  int64_t total = 0;
  for (const ShardInfo& shard : shards) total += shard.tokens;
  if (total < micro_batch_tokens(world_size, device_batch, sequence_len))
    return Error{ErrorCode::invalid_argument,
                 fmt::format("the corpus has {} tokens, but {}; use more text, or lower train.device_batch or "
                             "model.sequence_len",
                             total, micro_batch_need(world_size, device_batch, sequence_len))};
  std::vector<MappedShard> mapped;
  for (const ShardInfo& shard : shards) {
    if (shard.tokens == 0) continue;
    ASSAY_ASSIGN(MappedShard one, map_shard(shard));
    mapped.push_back(std::move(one));
  }
  return std::unique_ptr<Loader>(
      std::make_unique<MappedLoader>(std::move(mapped), sequence_len, device_batch, rank, world_size));
}

}  // namespace assay
