#include "engine/checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>

#include "base/file.h"
#include "engine/ops/error.h"
#include "tests/support/put_file.h"
#include "tests/support/temp_folder.h"

namespace assay {
namespace {

using testing::HasSubstr;

// Tensors with memory of their own, filled with every kind of bit pattern (NaN payloads and infinities included).
class Tensors {
 public:
  void add(const std::string& name, DType dtype, std::initializer_list<int64_t> shape) {
    Tensor tensor(nullptr, dtype, shape);
    memory_.emplace_back(tensor.bytes() + 1);  // + 1: data() of an empty vector is null
    for (char& byte : memory_.back()) byte = static_cast<char>(random_());
    tensor.data = memory_.back().data();
    list_.push_back({name, tensor});
  }
  const std::vector<NamedTensor>& list() const { return list_; }

 private:
  std::mt19937 random_{7};
  std::vector<std::vector<char>> memory_;
  std::vector<NamedTensor> list_;
};

Tensors every_dtype() {
  Tensors t;
  t.add("u8", DType::u8, {3});
  t.add("scalar", DType::f32, {});
  t.add("layers.0.weight", DType::f32, {2, 3, 5});
  t.add("bf16", DType::bf16, {7});
  t.add("e4m3", DType::fp8_e4m3, {5, 1});
  t.add("e5m2", DType::fp8_e5m2, {1, 3, 1, 2});
  t.add("i32", DType::i32, {4});
  t.add("f64", DType::f64, {2, 2});
  t.add("empty", DType::f32, {0, 8});
  return t;
}

void expect_same(const std::vector<NamedTensor>& written, const SafetensorsFile& file) {
  ASSERT_EQ(file.tensors.size(), written.size());
  for (const NamedTensor& w : written) {
    const Tensor* r = file.find(w.name);
    ASSERT_NE(r, nullptr) << w.name;
    EXPECT_EQ(r->dtype, w.tensor.dtype) << w.name;
    ASSERT_EQ(r->rank, w.tensor.rank) << w.name;
    EXPECT_EQ(r->shape, w.tensor.shape) << w.name;
    EXPECT_EQ(std::memcmp(r->data, w.tensor.data, w.tensor.bytes()), 0) << w.name;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(r->data) % size_of(r->dtype), 0u) << w.name;
  }
}

class SafetensorsTest : public testing::Test {
 protected:
  // A file with this header and as many zero bytes of data, which begin at a multiple of 8.
  void put(std::string header, size_t data_bytes) {
    header.resize((header.size() + 7) / 8 * 8, ' ');
    uint64_t length = header.size();
    std::string bytes(reinterpret_cast<const char*>(&length), 8);
    put_file(path_, bytes + header + std::string(data_bytes, '\0'));
  }
  std::string error() const {
    try {
      read_safetensors(path_);
    } catch (const EngineError& e) {
      EXPECT_EQ(e.reason, FailureReason::data_error);
      EXPECT_THAT(e.what(), HasSubstr(path_));
      return e.what();
    }
    return "no error";
  }
  TempFolder folder_;
  std::string path_ = folder_.file("t.safetensors");
};

TEST_F(SafetensorsTest, EveryDtypeComesBackBitForBit) {
  const Tensors tensors = every_dtype();
  write_safetensors(path_, tensors.list(), {{"step", "12"}, {"quote", "\"\\\n"}});
  const SafetensorsFile file = read_safetensors(path_);
  expect_same(tensors.list(), file);
  EXPECT_EQ(file.metadata, (std::map<std::string, std::string>{{"step", "12"}, {"quote", "\"\\\n"}}));
  EXPECT_EQ(file.find("nothing"), nullptr);
}

TEST_F(SafetensorsTest, MovedFilesKeepTheirTensors) {
  const Tensors tensors = every_dtype();
  write_safetensors(path_, tensors.list(), {});
  SafetensorsFile file = read_safetensors(path_);
  const SafetensorsFile moved = std::move(file);
  expect_same(tensors.list(), moved);
}

TEST_F(SafetensorsTest, WritesTheDocumentedLayout) {
  Tensors tensors;
  tensors.add("b", DType::bf16, {2});
  tensors.add("a", DType::f32, {1});
  const WrittenFile written = write_safetensors(path_, tensors.list(), {{"k", "v"}});
  const std::string bytes = read_file(path_).value();
  EXPECT_EQ(written.bytes, bytes.size());
  EXPECT_EQ(written.crc32, crc32(bytes));
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  EXPECT_EQ((8 + length) % 8, 0u);
  std::string header = bytes.substr(8, length);
  header.erase(header.find_last_not_of(' ') + 1);
  EXPECT_EQ(header, R"({"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                    R"("b":{"dtype":"BF16","shape":[2],"data_offsets":[4,8]}})");
  EXPECT_EQ(bytes.size(), 8 + length + 8);
}

TEST_F(SafetensorsTest, AnEmptyFileOfTensorsIsGood) {
  write_safetensors(path_, {}, {});
  EXPECT_TRUE(read_safetensors(path_).tensors.empty());
}

TEST_F(SafetensorsTest, OtherPeoplesKeyOrderIsRead) {
  put(R"({"b":{"data_offsets":[4,8],"dtype":"I32","shape":[1]},"a":{"shape":[2,1],"dtype":"BF16","data_offsets":[0,4]}})",
      8);
  const SafetensorsFile file = read_safetensors(path_);
  ASSERT_EQ(file.tensors.size(), 2u);
  EXPECT_EQ(file.tensors[0].name, "a");
  EXPECT_EQ(file.tensors[1].name, "b");
}

TEST_F(SafetensorsTest, MalformedHeadersAreNamed) {
  const std::vector<std::tuple<std::string, size_t, std::string>> cases = {
      {"[]", 0, "its header is not a JSON object"},
      {"{", 0, "its header is not a JSON object"},
      {std::string(100'000, '['), 0, "its header is not a JSON object"},
      {R"({"a":3})", 0, "its header is wrong"},
      {R"({"__metadata__":{"k":3}})", 0, "its header is wrong"},
      {R"({"a":{"dtype":"F32","shape":[1]}})", 4, "its header is wrong"},
      {R"({"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}})", 2, R"(its dtype "F16" is not known)"},
      {R"({"a":{"dtype":"F32","shape":4,"data_offsets":[0,4]}})", 4, "its shape is not a list of up to 4 sizes"},
      {R"({"a":{"dtype":"U8","shape":[1,1,1,1,1],"data_offsets":[0,1]}})", 1,
       "its shape is not a list of up to 4 sizes"},
      {R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "its shape holds something other than sizes"},
      {R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", 4, "its shape holds something other than sizes"},
      {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}})", 4, "larger than any file"},
      {R"({"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,4]}})", 4, "larger than any file"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4,
       "its shape takes 8 bytes, its data_offsets give 4"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4, "its data_offsets are not two numbers"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}})", 4, "its data_offsets are not two numbers"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4,
       "its data_offsets [4, 0] lie outside the 4 bytes"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 4,
       "its data_offsets [0, 8] lie outside the 4 bytes"},
      {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
       6, "its data begins at 2, but the tensor before it ends at 4"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}})",
       4, "its data begins at 3, but the tensor before it ends at 1"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 4, "its tensors take 1 bytes, but the file holds 4"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]} })",
       5, "its data is not aligned"},
  };
  for (const auto& [header, data_bytes, message] : cases) {
    put(header, data_bytes);
    EXPECT_THAT(error(), HasSubstr(message)) << header.substr(0, 200);
  }
}

TEST_F(SafetensorsTest, ImpossibleHeaderLengthsAreRefused) {
  for (const uint64_t length : {uint64_t{3}, uint64_t{1} << 20, UINT64_MAX, UINT64_MAX - 7}) {
    put_file(path_, std::string(reinterpret_cast<const char*>(&length), 8) + "{}");
    EXPECT_THAT(error(), HasSubstr("its header claims " + std::to_string(length) + " bytes, but the file has 10"));
  }
  put_file(path_, "short");
  EXPECT_THAT(error(), HasSubstr("it has 5 bytes, less than its header"));
}

TEST_F(SafetensorsTest, EveryTruncationIsRefused) {
  const Tensors tensors = every_dtype();
  write_safetensors(path_, tensors.list(), {{"k", "v"}});
  const std::string whole = read_file(path_).value();
  for (size_t size = 0; size < whole.size(); ++size) {
    put_file(path_, whole.substr(0, size));
    EXPECT_NE(error(), "no error") << size;
  }
}

// Whatever the bytes are, the answer is an EngineError or tensors that lie within the file.
TEST_F(SafetensorsTest, RandomDamageNeverEscapes) {
  const Tensors tensors = every_dtype();
  write_safetensors(path_, tensors.list(), {{"k", "v"}});
  const std::string whole = read_file(path_).value();
  std::mt19937 random(11);
  int refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string bad = whole;
    for (int i = 0; i < 1 + round % 4; ++i) {
      const char digits[] = "0123456789[]{}\",:-e";
      const bool syntax = random() % 2 == 0;  // half of them keep the header JSON more often
      bad[random() % (bad.size() - 60)] = syntax ? digits[random() % (sizeof digits - 1)] : static_cast<char>(random());
    }
    put_file(path_, bad);
    try {
      const SafetensorsFile file = read_safetensors(path_);
      const char* begin = file.storage.data();
      for (const NamedTensor& t : file.tensors) {
        ASSERT_GE(t.tensor.as<char>(), begin);
        ASSERT_LE(t.tensor.as<char>() + t.tensor.bytes(), begin + file.storage.size());
      }
    } catch (const EngineError& e) {
      ASSERT_EQ(e.reason, FailureReason::data_error);
      ++refused;
    }
  }
  EXPECT_GT(refused, 1000);
}

TEST_F(SafetensorsTest, FailuresToWriteAndReadNameThePath) {
  const std::string nowhere = folder_.file("missing/t.safetensors");
  EXPECT_THAT(
      [&] { write_safetensors(nowhere, {}, {}); },
      testing::ThrowsMessage<EngineError>(HasSubstr("cannot create " + nowhere + ": No such file or directory")));
  EXPECT_THAT([&] { read_safetensors(nowhere); },
              testing::ThrowsMessage<EngineError>(HasSubstr("cannot open " + nowhere + ": No such file or directory")));
  EXPECT_THAT([&] { read_safetensors(folder_.path()); },
              testing::ThrowsMessage<EngineError>(HasSubstr("it is not a regular file")));
}

TEST_F(SafetensorsTest, NamesThatTheFormatCannotHoldAreRefused) {
  Tensors twice;
  twice.add("w", DType::f32, {1});
  twice.add("w", DType::f32, {1});
  EXPECT_THAT([&] { write_safetensors(path_, twice.list(), {}); },
              testing::ThrowsMessage<EngineError>(HasSubstr("\"w\" is empty, reserved or given twice")));
  Tensors reserved;
  reserved.add("__metadata__", DType::f32, {1});
  EXPECT_THROW(write_safetensors(path_, reserved.list(), {}), EngineError);
  EXPECT_THROW(write_safetensors(path_, {}, {{"k", "\xFF"}}), EngineError);
}

// The reference implementation of the format must read what we write: name, dtype, shape and CRC-32 of the bytes.
TEST_F(SafetensorsTest, ThePythonPackageReadsOurFiles) {
  if (std::system("python3 -c 'import safetensors' 2>/dev/null") != 0)
    GTEST_SKIP() << "the Python package safetensors is not installed";
  const Tensors tensors = every_dtype();
  write_safetensors(path_, tensors.list(), {{"k", "v"}});
  const std::string script =
      "import safetensors, zlib\n"
      "for name, t in sorted(safetensors.deserialize(open('" +
      path_ +
      "', 'rb').read())):\n"
      "  print(name, t['dtype'], 'x'.join(map(str, t['shape'])), zlib.crc32(bytes(t['data'])))\n";
  put_file(folder_.file("read.py"), script);
  FILE* python = ::popen(("python3 " + folder_.file("read.py") + " 2>&1").c_str(), "r");
  ASSERT_NE(python, nullptr);
  std::string output;
  for (int c; (c = std::fgetc(python)) != EOF;) output += static_cast<char>(c);
  EXPECT_EQ(::pclose(python), 0) << output;
  std::map<std::string, std::string> expected;
  const std::map<DType, std::string> dtype_names = {
      {DType::f64, "F64"}, {DType::f32, "F32"}, {DType::bf16, "BF16"},       {DType::fp8_e4m3, "F8_E4M3"},
      {DType::i32, "I32"}, {DType::u8, "U8"},   {DType::fp8_e5m2, "F8_E5M2"}};
  for (const auto& [name, tensor] : tensors.list()) {
    std::string shape;
    for (int i = 0; i < tensor.rank; ++i) shape += (i > 0 ? "x" : "") + std::to_string(tensor.dim(i));
    expected[name] = name + " " + dtype_names.at(tensor.dtype) + " " + shape + " " +
                     std::to_string(crc32({tensor.as<char>(), tensor.bytes()})) + "\n";
  }
  std::string lines;
  for (const auto& [name, line] : expected) lines += line;
  EXPECT_EQ(output, lines);
}

}  // namespace
}  // namespace assay
