#include "engine/checkpoint/safetensors.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "base/file.h"
#include "base/limits.h"
#include "base/unique_handle.h"
#include "engine/ops/error.h"

namespace assay {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "safetensors files are little endian");

constexpr size_t length_bytes = sizeof(uint64_t);
constexpr size_t data_alignment = 8;  // of the first tensor; size_of(f64), the largest element
constexpr std::array<std::pair<DType, const char*>, 7> dtype_names = {{{DType::f64, "F64"},
                                                                       {DType::f32, "F32"},
                                                                       {DType::bf16, "BF16"},
                                                                       {DType::fp8_e4m3, "F8_E4M3"},
                                                                       {DType::fp8_e5m2, "F8_E5M2"},
                                                                       {DType::i32, "I32"},
                                                                       {DType::u8, "U8"}}};

const char* format_name(DType type) {
  for (const auto& [dtype, name] : dtype_names)
    if (dtype == type) return name;
  return "U8";  // the table names every DType
}

std::optional<DType> dtype_of(std::string_view name) {
  for (const auto& [dtype, known] : dtype_names)
    if (name == known) return dtype;
  return std::nullopt;
}

[[noreturn]] void io_failure(const char* what, const std::string& path) {
  const int saved = errno;
  throw EngineError(FailureReason::internal, fmt::format("cannot {} {}: {}", what, path, std::strerror(saved)));
}

[[noreturn]] void malformed(const std::string& path, const std::string& what, const std::string& tensor = {}) {
  const std::string where = tensor.empty() ? path : fmt::format("{} (tensor {})", path, tensor);
  throw EngineError(FailureReason::data_error, fmt::format("{} is not a usable safetensors file: {}", where, what), {},
                    tensor);
}

// The format allows no holes between tensors, so larger elements go first: then every tensor is aligned to its element.
std::vector<const NamedTensor*> file_order(const std::vector<NamedTensor>& tensors) {
  std::vector<const NamedTensor*> order;
  for (const NamedTensor& t : tensors) order.push_back(&t);
  std::sort(order.begin(), order.end(), [](const NamedTensor* a, const NamedTensor* b) {
    const size_t size_a = size_of(a->tensor.dtype), size_b = size_of(b->tensor.dtype);
    return size_a != size_b ? size_a > size_b : a->name < b->name;
  });
  return order;
}

std::string make_header(const std::vector<const NamedTensor*>& order,
                        const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const NamedTensor* t : order) {
    const Tensor& tensor = t->tensor;
    const std::vector<int64_t> shape(tensor.shape.begin(), tensor.shape.begin() + tensor.rank);
    const uint64_t end = offset + tensor.bytes();
    header[t->name] = {{"dtype", format_name(tensor.dtype)}, {"shape", shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  while ((length_bytes + text.size()) % data_alignment != 0) text += ' ';
  return text;
}

// A file being written, and what has gone into it.
class Output {
 public:
  explicit Output(const std::string& path)
      : path_(path), fd_(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) {
    if (!fd_) io_failure("create", path_);
  }
  void write(const void* data, size_t size) {
    std::string_view left(static_cast<const char*>(data), size);
    written_.crc32 = crc32(left, written_.crc32);
    written_.bytes += size;
    while (!left.empty()) {
      const ssize_t n = ::write(fd_.get(), left.data(), left.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) io_failure("write", path_);
      left.remove_prefix(static_cast<size_t>(n));
    }
  }
  WrittenFile finish() {
    if (::fsync(fd_.get()) != 0) io_failure("fsync", path_);
    return written_;
  }

 private:
  std::string path_;
  UniqueFd fd_;
  WrittenFile written_;
};

void check_names(const std::string& path, const std::vector<NamedTensor>& tensors) {
  std::set<std::string_view> names;
  for (const NamedTensor& t : tensors)
    if (t.name.empty() || t.name == "__metadata__" || !names.insert(t.name).second)
      throw EngineError(
          FailureReason::internal,
          fmt::format("cannot write {}: \"{}\" is empty, reserved or given twice as a tensor name", path, t.name), {},
          t.name);
}

std::vector<char> read_whole(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) io_failure("open", path);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) io_failure("stat", path);
  if (!S_ISREG(info.st_mode)) malformed(path, "it is not a regular file");
  std::vector<char> bytes(static_cast<size_t>(info.st_size));
  size_t got = 0;
  while (got < bytes.size()) {
    const ssize_t n = ::read(fd.get(), bytes.data() + got, bytes.size() - got);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) io_failure("read", path);
    if (n == 0) malformed(path, fmt::format("it ended after {} of {} bytes while it was read", got, bytes.size()));
    got += static_cast<size_t>(n);
  }
  return bytes;
}

json parse_header(const std::string& path, const std::vector<char>& bytes, size_t* data_begin) {
  if (bytes.size() < length_bytes) malformed(path, fmt::format("it has {} bytes, less than its header", bytes.size()));
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), length_bytes);
  if (length > limits::safetensors_header_bytes || length > bytes.size() - length_bytes)
    malformed(path, fmt::format("its header claims {} bytes, but the file has {}", length, bytes.size()));
  *data_begin = length_bytes + static_cast<size_t>(length);
  json header =
      json::parse(bytes.begin() + length_bytes, bytes.begin() + static_cast<std::ptrdiff_t>(*data_begin), nullptr,
                  /*allow_exceptions=*/false);
  if (!header.is_object()) malformed(path, "its header is not a JSON object");
  return header;
}

Tensor parse_tensor(const std::string& path, const std::string& name, const json& entry) {
  Tensor tensor;
  const auto dtype = dtype_of(entry.at("dtype").get_ref<const std::string&>());
  if (!dtype) malformed(path, "its dtype " + entry.at("dtype").dump() + " is not known", name);
  tensor.dtype = *dtype;
  const json& shape = entry.at("shape");
  if (!shape.is_array() || shape.size() > tensor.shape.size())
    malformed(path, "its shape is not a list of up to 4 sizes", name);
  int64_t bytes = static_cast<int64_t>(size_of(tensor.dtype));
  for (const json& dim : shape) {
    if (!dim.is_number_unsigned()) malformed(path, "its shape holds something other than sizes", name);
    const auto size = dim.get<uint64_t>();
    if (size > static_cast<uint64_t>(INT64_MAX) || __builtin_mul_overflow(bytes, static_cast<int64_t>(size), &bytes))
      malformed(path, "its shape is larger than any file", name);
    tensor.shape[static_cast<size_t>(tensor.rank++)] = static_cast<int64_t>(size);
  }
  return tensor;
}

struct Extent {
  size_t begin = 0, end = 0;
};

Extent parse_extent(const std::string& path, const std::string& name, const json& entry, size_t data_size) {
  const json& offsets = entry.at("data_offsets");
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned())
    malformed(path, "its data_offsets are not two numbers", name);
  const auto begin = offsets[0].get<uint64_t>(), end = offsets[1].get<uint64_t>();
  if (begin > end || end > data_size)
    malformed(path, fmt::format("its data_offsets [{}, {}] lie outside the {} bytes of data", begin, end, data_size),
              name);
  return {static_cast<size_t>(begin), static_cast<size_t>(end)};
}

// Tensors in the order of their bytes, which must fill the data part without holes or overlaps.
void collect_tensors(const std::string& path, const json& header, size_t data_begin, SafetensorsFile& file) {
  const size_t data_size = file.storage.size() - data_begin;
  std::vector<std::pair<Extent, NamedTensor>> found;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      file.metadata = entry.get<std::map<std::string, std::string>>();
      continue;
    }
    Tensor tensor = parse_tensor(path, name, entry);
    const Extent extent = parse_extent(path, name, entry, data_size);
    if (extent.end - extent.begin != tensor.bytes())
      malformed(
          path,
          fmt::format("its shape takes {} bytes, its data_offsets give {}", tensor.bytes(), extent.end - extent.begin),
          name);
    tensor.data = file.storage.data() + data_begin + extent.begin;
    if (reinterpret_cast<uintptr_t>(tensor.data) % size_of(tensor.dtype) != 0)
      malformed(path, "its data is not aligned to its element size", name);
    found.emplace_back(extent, NamedTensor{name, tensor});
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first.begin, a.first.end) < std::pair(b.first.begin, b.first.end);
  });
  size_t expected = 0;
  for (auto& [extent, named] : found) {
    if (extent.begin != expected)
      malformed(path, fmt::format("its data begins at {}, but the tensor before it ends at {}", extent.begin, expected),
                named.name);
    expected = extent.end;
    file.tensors.push_back(std::move(named));
  }
  if (expected != data_size)
    malformed(path, fmt::format("its tensors take {} bytes, but the file holds {}", expected, data_size));
}

}  // namespace

WrittenFile write_safetensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                              const std::map<std::string, std::string>& metadata) {
  check_names(path, tensors);
  const auto order = file_order(tensors);
  std::string header;
  try {
    header = make_header(order, metadata);
  } catch (const json::exception& e) {  // text that is not UTF-8
    throw EngineError(FailureReason::internal, fmt::format("cannot write {}: {}", path, e.what()));
  }
  Output output(path);
  const uint64_t length = header.size();
  output.write(&length, length_bytes);
  output.write(header.data(), header.size());
  for (const NamedTensor* t : order) output.write(t->tensor.data, t->tensor.bytes());
  return output.finish();
}

const Tensor* SafetensorsFile::find(const std::string& name) const {
  for (const NamedTensor& t : tensors)
    if (t.name == name) return &t.tensor;
  return nullptr;
}

SafetensorsFile read_safetensors(const std::string& path) {
  SafetensorsFile file;
  file.storage = read_whole(path);
  size_t data_begin = 0;
  const json header = parse_header(path, file.storage, &data_begin);
  try {
    collect_tensors(path, header, data_begin, file);
  } catch (const json::exception& e) {
    malformed(path, fmt::format("its header is wrong: {}", e.what()));
  }
  return file;
}

}  // namespace assay
