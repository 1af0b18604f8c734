#include "engine/data/shard.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <filesystem>

#include "base/file.h"
#include "base/unique_handle.h"

namespace assay {
namespace {

static_assert(std::endian::native == std::endian::little, "shards are little endian and are mapped, not converted");

constexpr size_t header_ints = shard_header_bytes / sizeof(int32_t);

Error bad_shard(const std::string& path, const std::string& what) {
  return Error{ErrorCode::data_loss, fmt::format("{} is not a usable token shard: {}", path, what)};
}

constexpr std::string_view word_of(ShardKind kind) {
  return kind == ShardKind::train ? "train" : "val";
}

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool has_word(std::string_view name, std::string_view word) {
  for (size_t at = name.find(word); at != std::string_view::npos; at = name.find(word, at + 1)) {
    const size_t end = at + word.size();
    if ((at == 0 || !is_letter(name[at - 1])) && (end == name.size() || !is_letter(name[end]))) return true;
  }
  return false;
}

int64_t total_tokens(const std::vector<ShardInfo>& shards) {
  int64_t total = 0;
  for (const ShardInfo& shard : shards) total += shard.tokens;
  return total;
}

}  // namespace

Result<ShardKind> shard_kind(const std::string& path) {
  const std::string name = std::filesystem::path(path).stem().string();
  const bool train = has_word(name, word_of(ShardKind::train)), val = has_word(name, word_of(ShardKind::val));
  if (train != val) return train ? ShardKind::train : ShardKind::val;
  return Error{ErrorCode::invalid_argument,
               fmt::format("{} has {} in its name, so it is not clear whether it holds training or validation text; "
                           "give it one of the two words (such as corpus_train_000001.bin), or take it out of the "
                           "folder",
                           path, train ? "both \"train\" and \"val\"" : "neither \"train\" nor \"val\"")};
}

std::string shard_name(std::string_view corpus, ShardKind kind, int number) {
  return fmt::format("{}_{}_{:06}.bin", corpus, word_of(kind), number);
}

Result<ShardInfo> open_shard(const std::string& path) {
  // O_NONBLOCK: opening a FIFO must not wait for its writer; it is refused below.
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return system_error("open token shard", path);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return system_error("stat token shard", path);
  if (!S_ISREG(info.st_mode)) return bad_shard(path, "it is not a regular file");
  const auto size = static_cast<size_t>(info.st_size);
  if (size < shard_header_bytes)
    return bad_shard(path, fmt::format("it has {} bytes, less than the header of {}", size, shard_header_bytes));
  std::array<int32_t, header_ints> header{};
  if (::pread(fd.get(), header.data(), shard_header_bytes, 0) != static_cast<ssize_t>(shard_header_bytes))
    return system_error("read the header of", path);
  if (header[0] != shard_magic)
    return bad_shard(
        path, fmt::format("its magic number is {}, but llm.c token shards begin with {}", header[0], shard_magic));
  if (header[1] != shard_version)
    return bad_shard(
        path, fmt::format("its version is {}, but only version {} (uint16 tokens) is read", header[1], shard_version));
  const size_t body = size - shard_header_bytes;
  if (body % sizeof(uint16_t) != 0)
    return bad_shard(path, fmt::format("its size of {} bytes is not even: it ends within a token", size));
  const int64_t tokens = header[2];
  const auto held = static_cast<int64_t>(body / sizeof(uint16_t));
  if (tokens != held)
    return bad_shard(path,
                     fmt::format("its header says {} tokens, but the file holds {}: it is truncated, or still being "
                                 "copied",
                                 tokens, held));
  return ShardInfo{path, tokens};
}

Result<Corpus> open_corpus(const std::string& path) {
  namespace fs = std::filesystem;
  const char* advice = "make one with `assay data prepare`, or put llm.c token shards there";
  std::error_code failure;
  fs::directory_iterator entries(path, failure);
  if (failure)
    return Error{failure == std::errc::no_such_file_or_directory ? ErrorCode::not_found : ErrorCode::invalid_argument,
                 fmt::format("cannot read the corpus folder {}: {}; {}", path, failure.message(), advice)};
  std::vector<std::string> names;
  for (; entries != fs::directory_iterator(); entries.increment(failure)) {
    if (entries->path().extension() == ".bin") names.push_back(entries->path().string());
  }
  if (failure)
    return Error{ErrorCode::internal, fmt::format("cannot read the corpus folder {}: {}", path, failure.message())};
  if (names.empty())
    return Error{ErrorCode::not_found, fmt::format("the corpus folder {} holds no *.bin shards; {}", path, advice)};
  std::sort(names.begin(), names.end());

  Corpus corpus;
  for (const std::string& name : names) {
    ASSAY_ASSIGN(const ShardKind kind, shard_kind(name));
    ASSAY_ASSIGN(ShardInfo shard, open_shard(name));
    (kind == ShardKind::train ? corpus.train : corpus.val).push_back(std::move(shard));
  }
  if (corpus.train.empty())
    return Error{ErrorCode::not_found,
                 fmt::format("the corpus folder {} holds {} *.bin files, but none with \"train\" in its name (such as "
                             "corpus_train_000001.bin)",
                             path, names.size())};
  corpus.train_tokens = total_tokens(corpus.train);
  corpus.val_tokens = total_tokens(corpus.val);
  return corpus;
}

Status write_shard(const std::string& path, const std::vector<uint16_t>& tokens) {
  if (tokens.size() > static_cast<size_t>(INT32_MAX))
    return Error{
        ErrorCode::invalid_argument,
        fmt::format("{} would hold {} tokens, but a shard's header counts at most {}", path, tokens.size(), INT32_MAX)};
  std::array<int32_t, header_ints> header{};
  header[0] = shard_magic;
  header[1] = shard_version;
  header[2] = static_cast<int32_t>(tokens.size());
  std::string content(reinterpret_cast<const char*>(header.data()), shard_header_bytes);
  content.append(reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(uint16_t));
  return write_file_atomically(path, content);
}

}  // namespace assay
