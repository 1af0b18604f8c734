#include "worker/attempt/journal.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <limits>
#include <sstream>

#include "base/file.h"
#include "spec/step_text.h"
#include "tests/support/kill_points.h"
#include "tests/support/paths.h"
#include "tests/support/put_file.h"
#include "tests/support/step_values.h"
#include "tests/support/temp_folder.h"

namespace assay {
namespace {

using testing::HasSubstr;

StepMetrics metrics_of(int64_t step) {
  StepMetrics m = some_step(step);
  if (step % 2 == 0) m.val_loss = not_recorded<double>;
  return m;
}

constexpr size_t header_size = limits::journal_header_bytes;
constexpr size_t size_of(size_t records) {
  return header_size + records * journal_record_size;
}

class JournalTest : public testing::Test {
 protected:
  void append(int from, int to) {
    auto writer = JournalWriter::open(path_);
    ASSERT_TRUE(writer.ok()) << writer.error().message;
    for (int step = from; step < to; ++step) ASSERT_TRUE(writer->append(metrics_of(step)).ok());
  }
  std::string content() const { return read_file(path_).value(); }
  void set_content(const std::string& bytes) { put_file(path_, bytes); }
  // Everything a new reader gets; the journal must be good.
  std::vector<JournalRecord> read_all() const {
    auto records = JournalReader(path_).read(1000);
    EXPECT_TRUE(records.ok()) << records.error().message;
    return records.ok() ? *records : std::vector<JournalRecord>();
  }
  void expect_steps(const std::vector<JournalRecord>& records, int count) {
    ASSERT_EQ(records.size(), static_cast<size_t>(count));
    for (int i = 0; i < count; ++i) {
      EXPECT_EQ(records[static_cast<size_t>(i)].seq, i + 1);
      EXPECT_EQ(bits(records[static_cast<size_t>(i)].metrics), bits(metrics_of(i)));
    }
  }

  TempFolder folder_;
  std::string path_ = folder_.file("journal.bin");
};

TEST_F(JournalTest, RecordsComeBackBitForBit) {
  append(0, 5);
  expect_steps(read_all(), 5);
  auto writer = JournalWriter::open(path_);
  StepMetrics odd = metrics_of(5);
  odd.loss = std::numeric_limits<double>::infinity();
  odd.grad_norm = -0.0;
  ASSERT_TRUE(writer->append(odd).ok());
  EXPECT_EQ(bits(read_all().back().metrics), bits(odd));
}

TEST_F(JournalTest, LayoutIsTheDocumentedOne) {
  append(0, 2);
  const std::string bytes = content();
  ASSERT_EQ(bytes.size(), size_of(2));
  std::string fields;
  for (const StepField& field : step_fields)
    fields += (field.is_integer() ? "i64 " : "f64 ") + std::string(field.name) + "\n";
  fields.resize(4096 - 16 - 13, '\n');
  EXPECT_EQ(bytes.substr(0, 4096), "assay journal 2\n" + fmt::format("crc {:08x}\n", crc32(fields)) + fields);
  EXPECT_EQ(bytes.substr(29, 18), "i64 step\nf64 loss\n");
  const std::string second = bytes.substr(size_of(1));
  EXPECT_EQ(second.substr(0, 4), std::string({static_cast<char>(8 * std::size(step_fields)), 0, 0, 0}));
  uint32_t crc = 0;
  std::memcpy(&crc, second.data() + 4, 4);
  EXPECT_EQ(crc, crc32(second.substr(8)));
  EXPECT_EQ(second.substr(8, 8), std::string("\2\0\0\0\0\0\0\0", 8));   // sequence
  EXPECT_EQ(second.substr(16, 8), std::string("\1\0\0\0\0\0\0\0", 8));  // step 1
  double loss = 0;
  std::memcpy(&loss, second.data() + 24, 8);
  EXPECT_EQ(loss, metrics_of(1).loss);
}

TEST_F(JournalTest, ReaderFollowsAWriterAndNeverRepeats) {
  JournalReader reader(path_);
  EXPECT_TRUE(reader.read(10)->empty());  // no file yet
  append(0, 3);
  EXPECT_EQ(reader.read(2)->size(), 2u);
  EXPECT_EQ(reader.read(2)->size(), 1u);
  EXPECT_TRUE(reader.read(2)->empty());
  append(3, 5);
  const auto rest = reader.read(10);
  ASSERT_EQ(rest->size(), 2u);
  EXPECT_EQ(rest->front().seq, 4);
}

TEST_F(JournalTest, AReaderCanStartAfterAnyRecord) {
  append(0, 5);
  JournalReader reader(path_);
  ASSERT_TRUE(reader.seek_after(3).ok());
  EXPECT_EQ(reader.read(10)->front().seq, 4);
  ASSERT_TRUE(reader.seek_after(0).ok());
  EXPECT_EQ(reader.read(10)->size(), 5u);
  const Status beyond = reader.seek_after(6);
  ASSERT_FALSE(beyond.ok());
  EXPECT_EQ(beyond.error().code, ErrorCode::data_loss);
  EXPECT_THAT(beyond.error().message, HasSubstr("record 6 is wanted, but the file ends before it does"));
  EXPECT_EQ(reader.seek_after(-1).error().code, ErrorCode::invalid_argument);
}

TEST_F(JournalTest, CutAtEveryByteOfTheLastTwoRecords) {
  append(0, 4);
  const std::string whole = content();
  for (size_t size = size_of(2); size < whole.size(); ++size) {
    SCOPED_TRACE(size);
    set_content(whole.substr(0, size));
    const int good = static_cast<int>((size - header_size) / journal_record_size);
    expect_steps(read_all(), good);
    append(good, 4);
    EXPECT_EQ(content(), whole);
  }
}

TEST_F(JournalTest, FlippedByteInTheLastRecordDropsOnlyIt) {
  append(0, 3);
  const std::string whole = content();
  for (size_t at = size_of(2); at < whole.size(); ++at) {
    SCOPED_TRACE(at);
    std::string bad = whole;
    bad[at] ^= 0x10;
    set_content(bad);
    expect_steps(read_all(), 2);
    append(2, 3);
    EXPECT_EQ(content(), whole);
  }
}

TEST_F(JournalTest, FlippedByteBeforeTheLastRecordIsDataLossWithItsOffset) {
  append(0, 3);
  const std::string whole = content();
  for (size_t at = size_of(1); at < size_of(2); ++at) {
    SCOPED_TRACE(at);
    std::string bad = whole;
    bad[at] ^= 0x01;
    set_content(bad);
    JournalReader reader(path_);
    EXPECT_EQ(reader.read(10)->size(), 1u);  // the good record comes first
    const auto records = reader.read(10);
    ASSERT_FALSE(records.ok());
    EXPECT_EQ(records.error().code, ErrorCode::data_loss);
    EXPECT_THAT(records.error().message,
                HasSubstr(fmt::format("{} is damaged at byte {} (record 2)", path_, size_of(1))));
    const auto writer = JournalWriter::open(path_);
    ASSERT_FALSE(writer.ok());
    EXPECT_EQ(writer.error().code, ErrorCode::data_loss);
    EXPECT_EQ(content(), bad);  // what is there is left for a person to look at
  }
}

TEST_F(JournalTest, AFileThatShrinksUnderItsReaderIsDataLoss) {
  append(0, 3);
  JournalReader reader(path_);
  ASSERT_EQ(reader.read(10)->size(), 3u);
  set_content(content().substr(0, size_of(1)));
  EXPECT_THAT(reader.read(10).error().message,
              HasSubstr(fmt::format("the file ends here, but {} bytes were read before", size_of(3))));
  std::filesystem::remove(path_);
  EXPECT_THAT(reader.read(10).error().message, HasSubstr("cannot open journal " + path_));
}

TEST_F(JournalTest, StopsAtItsSizeLimitAndStaysReadable) {
  auto writer = JournalWriter::open(path_, size_of(3) + 50);
  for (int step = 0; step < 3; ++step) ASSERT_TRUE(writer->append(metrics_of(step)).ok());
  const Status full = writer->append(metrics_of(3));
  ASSERT_FALSE(full.ok());
  EXPECT_EQ(full.error().code, ErrorCode::resource_exhausted);
  EXPECT_THAT(full.error().message,
              HasSubstr(fmt::format("holds 3 records and is at its limit of {} bytes", size_of(3) + 50)));
  EXPECT_EQ(writer->last_seq(), 3);
  expect_steps(read_all(), 3);
}

// The file-size limit of the process stands in for a full disk: write(2) does part of the record, then fails.
TEST_F(JournalTest, AFullDiskLeavesTheFileAsItWas) {
  append(0, 2);
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    auto writer = JournalWriter::open(path_);
    const rlimit limit{size_of(2) + 40, RLIM_INFINITY};
    if (!writer.ok() || ::setrlimit(RLIMIT_FSIZE, &limit) != 0) ::_exit(1);
    const Status full = writer->append(metrics_of(2));
    if (full.ok() || full.error().code != ErrorCode::resource_exhausted) ::_exit(2);
    if (full.error().message.find("cannot append to journal") == std::string::npos) ::_exit(3);
    const rlimit lifted{RLIM_INFINITY, RLIM_INFINITY};
    if (::setrlimit(RLIMIT_FSIZE, &lifted) != 0 || !writer->append(metrics_of(2)).ok()) ::_exit(4);
    ::_exit(writer->last_seq() == 3 ? 0 : 5);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0) << "exit code " << WEXITSTATUS(status);
  expect_steps(read_all(), 3);
}

TEST_F(JournalTest, AKillAtAnyPointOfWritingLosesNothingAppended) {
  const int kills = kill_at_every_point({
      .set_up =
          [&] {
            std::filesystem::remove(path_);
            append(0, 2);
            set_content(content() + "torn");
          },
      .work =
          [&] {
            append(2, 5);
            return !HasFailure();
          },
      .verify =
          [&](const KillPoint& point) {
            SCOPED_TRACE(point.describe());
            const auto records = read_all();
            ASSERT_GE(records.size(), 2u);
            expect_steps(records, static_cast<int>(records.size()));
            append(static_cast<int>(records.size()), 5);
            expect_steps(read_all(), 5);
          },
  });
  if (kills < 0) GTEST_SKIP() << "this system does not allow tracing a child process";
  EXPECT_EQ(kills, 7);  // before the cut of the torn tail; before and halfway through three writes
}

TEST_F(JournalTest, AReaderBesideALiveWriterSeesEveryRecordOnceInOrder) {
  constexpr int count = 20'000;
  const pid_t child = ::fork();
  if (child == 0) {
    auto writer = JournalWriter::open(path_);
    bool good = writer.ok();
    for (int step = 0; good && step < count; ++step) good = writer->append(metrics_of(step)).ok();
    ::_exit(good ? 0 : 1);
  }
  JournalReader reader(path_);
  int64_t seen = 0;
  bool writing = true;
  while (true) {
    int status = 0;
    if (writing && ::waitpid(child, &status, WNOHANG) == child) {
      writing = false;
      EXPECT_EQ(status, 0);
    }
    const auto records = reader.read(500);
    ASSERT_TRUE(records.ok()) << records.error().message;
    for (const JournalRecord& record : *records) {
      ASSERT_EQ(record.seq, ++seen);
      ASSERT_EQ(record.metrics.step, seen - 1);
    }
    if (!writing && records->empty()) break;
  }
  EXPECT_EQ(seen, count);
}

TEST_F(JournalTest, CutWithinItsHeaderItHoldsNothingAndBeginsAnew) {
  append(0, 2);
  const std::string whole = content();
  for (size_t size = 0; size <= header_size; size = size < 40 ? size + 1 : size + 507) {
    SCOPED_TRACE(size);
    set_content(whole.substr(0, size));
    JournalReader reader(path_);
    EXPECT_TRUE(reader.read(10)->empty());
    EXPECT_TRUE(reader.seek_after(0).ok());
    EXPECT_EQ(reader.seek_after(1).error().code, ErrorCode::data_loss);
    append(0, 2);
    EXPECT_EQ(content(), whole);
    EXPECT_EQ(reader.read(10)->size(), 2u);
  }
  set_content(std::string(header_size, '\0'));  // the power went before its first page was written
  EXPECT_TRUE(JournalReader(path_).read(10)->empty());
  append(0, 2);
  EXPECT_EQ(content(), whole);
}

TEST_F(JournalTest, AFlippedByteOfTheHeaderIsDataLossAndNothingIsCut) {
  append(0, 3);
  const std::string whole = content();
  for (size_t at = 0; at < header_size; at = at < 300 ? at + 1 : at + 97) {
    SCOPED_TRACE(at);
    std::string bad = whole;
    bad[at] ^= 0x04;
    set_content(bad);
    EXPECT_FALSE(JournalReader(path_).read(10).ok());
    EXPECT_FALSE(JournalWriter::open(path_).ok());
    EXPECT_EQ(content(), bad);
  }
  std::string bad = whole;
  bad[100] ^= 0x04;
  set_content(bad);
  EXPECT_EQ(JournalReader(path_).read(10).error().message,
            "journal " + path_ + " is damaged at its beginning: the CRC-32 of its header does not match");
}

// --- journals of other versions ------------------------------------------------------------------------------------

class OtherJournalTest : public JournalTest {
 protected:
  static std::string fixture(const std::string& run) {
    return read_file(source_dir() + "/tests/fixtures/home_1/" + run + "/journal.bin").value();
  }
  // As the program that wrote the journal reported its steps.
  static std::vector<std::string> reported(const std::string& run) {
    std::istringstream csv(read_file(source_dir() + "/tests/fixtures/home_1/steps.csv").value());
    std::vector<std::string> lines;
    for (std::string line; std::getline(csv, line);)
      if (line.starts_with(run + ",1,")) lines.push_back(line);
    return lines;
  }
  // A journal of version 2 with these lines in its header, and records of this payload (8 bytes a field).
  void make(std::string fields, const std::vector<std::string>& payloads) {
    fields.resize(header_size - 16 - 13, '\n');
    std::string bytes = "assay journal 2\n" + fmt::format("crc {:08x}\n", crc32(fields)) + fields;
    for (size_t i = 0; i < payloads.size(); ++i) {
      std::string sealed(8, '\0');
      sealed[0] = static_cast<char>(i + 1);
      sealed += payloads[i];
      const auto length = static_cast<uint32_t>(payloads[i].size());
      const uint32_t crc = crc32(sealed);
      bytes.append(reinterpret_cast<const char*>(&length), 4).append(reinterpret_cast<const char*>(&crc), 4) += sealed;
    }
    set_content(bytes);
  }
  template <class T>
  static std::string bytes_of(T value) {
    return std::string(reinterpret_cast<const char*>(&value), sizeof value);
  }
  static std::string header_lines(const std::string& left_out = "") {
    std::string lines;
    for (const StepField& field : step_fields)
      if (field.name != left_out) lines += fmt::format("{} {}\n", field.is_integer() ? "i64" : "f64", field.name);
    return lines;
  }
  static std::string payload(const StepMetrics& metrics, const std::string& left_out = "") {
    std::string bytes;
    for (const StepField& field : step_fields)
      if (field.name != left_out) field.visit(metrics, [&](auto value) { bytes += bytes_of(value); });
    return bytes;
  }
};

TEST_F(OtherJournalTest, AJournalOfVersion1IsReadAsItWas) {
  for (const char* run : {"a", "b"}) {
    set_content(fixture(run));
    const auto records = read_all();
    const auto lines = reported(run);
    ASSERT_EQ(records.size(), lines.size());
    EXPECT_EQ(records.size(), run[0] == 'a' ? 12u : 9u);
    for (size_t i = 0; i < records.size(); ++i) {
      EXPECT_EQ(records[i].seq, static_cast<int64_t>(i) + 1);
      const StepMetrics& metrics = records[i].metrics;
      std::string line;
      append_steps_csv(line, run, 1, metrics);
      const std::string as_reported = fmt::format("{},{},", lines[i], metrics.unix_ms);
      EXPECT_EQ(line.substr(0, as_reported.size()), as_reported);
      EXPECT_EQ(line.find_first_not_of(",\n", as_reported.size()), std::string::npos) << "later fields are empty";
      EXPECT_NEAR(static_cast<double>(metrics.unix_ms), 1795869549500.0, 1000.0);
    }
  }
}

TEST_F(OtherJournalTest, AJournalOfVersion1GoesOnAsItBegan) {
  const std::string old = fixture("a");
  for (const size_t torn : {0, 1, 50, 112}) {
    set_content(old + std::string(torn, 'x'));
    JournalReader reader(path_);
    ASSERT_TRUE(reader.seek_after(11).ok());
    EXPECT_EQ(reader.read(100)->size(), 1u);
    auto writer = JournalWriter::open(path_);
    ASSERT_TRUE(writer.ok()) << writer.error().message;
    EXPECT_EQ(writer->last_seq(), 12);
    EXPECT_THAT(writer->left_out(), testing::IsSupersetOf({"tokens", "flops"}));
    StepMetrics next = metrics_of(12);
    ASSERT_TRUE(writer->append(next).ok());
    EXPECT_EQ(content().size(), 13u * 113);
    EXPECT_EQ(content().substr(0, old.size()), old);
    for (const StepField& field : step_fields)
      if (field.since > 1) field.visit(next, []<class T>(T& value) { value = not_recorded<T>; });
    EXPECT_EQ(bits(reader.read(100)->at(0).metrics), bits(next));
  }
  EXPECT_TRUE(JournalWriter::open(folder_.file("new"))->left_out().empty());
}

TEST_F(OtherJournalTest, DamageOfAJournalOfVersion1IsFound) {
  const std::string old = fixture("a");
  for (size_t at = 0; at < 226; ++at) {  // with more behind it
    std::string bad = old;
    bad[at] ^= 0x20;
    set_content(bad);
    EXPECT_FALSE(JournalWriter::open(path_).ok()) << at;
    EXPECT_EQ(content(), bad);
  }
  std::string bad = old;
  bad[11 * 113 + 60] ^= 0x20;
  set_content(bad);
  EXPECT_EQ(read_all().size(), 11u);
}

TEST_F(OtherJournalTest, FieldsOfANewerJournalAreLeftOutByName) {
  const std::string lines = header_lines(), all = payload(metrics_of(0)), next = payload(metrics_of(1));
  const size_t second_line = lines.find('\n') + 1;
  // A field after the first and one at the end, one of a type that this program does not know.
  const auto with_more = [](const std::string& p) { return p.substr(0, 8) + "abcdefgh" + p.substr(8) + "ijklmnop"; };
  make(lines.substr(0, second_line) + "f64 zeal\n" + lines.substr(second_line) + "u64 vigour\n",
       {with_more(all), with_more(next)});
  expect_steps(read_all(), 2);
  JournalReader reader(path_);
  ASSERT_TRUE(reader.seek_after(1).ok());
  EXPECT_EQ(reader.read(5)->size(), 1u);
  const auto writer = JournalWriter::open(path_);
  ASSERT_FALSE(writer.ok());
  EXPECT_EQ(writer.error().code, ErrorCode::failed_precondition);
  EXPECT_THAT(writer.error().message, HasSubstr("does not know: zeal, vigour; go on with the newer program"));
}

TEST_F(OtherJournalTest, AFieldThatIsNotInTheJournalIsNotRecorded) {
  make(header_lines("tokens"), {payload(metrics_of(0), "tokens"), payload(metrics_of(1), "tokens")});
  const auto records = read_all();
  ASSERT_EQ(records.size(), 2u);
  StepMetrics expected = metrics_of(1);
  expected.tokens = not_recorded<int64_t>;
  EXPECT_EQ(bits(records[1].metrics), bits(expected));
  EXPECT_THAT(JournalWriter::open(path_)->left_out(), testing::ElementsAre("tokens"));
}

TEST_F(OtherJournalTest, WhatCannotBeReadSaysWhy) {
  const auto message = [&] { return JournalReader(path_).read(5).error().message; };
  make(header_lines("loss"), {});
  EXPECT_EQ(message(),
            "journal " + path_ + " was written by another version of Assay: it has no field loss; use that version");
  make(header_lines("loss") + "i64 loss\n", {});
  EXPECT_THAT(message(), HasSubstr("its field loss is not a f64"));
  make(header_lines() + "f64 loss\n", {});
  EXPECT_THAT(message(), HasSubstr("it has field loss twice"));
  set_content("assay journal 3\nanything at all");
  EXPECT_THAT(message(), HasSubstr("\"assay journal 3\" is none that this program knows"));
  set_content("something else");
  EXPECT_THAT(message(), HasSubstr("this is not how a journal begins"));
  EXPECT_EQ(JournalWriter::open(path_).error().code, ErrorCode::data_loss);
  EXPECT_EQ(content(), "something else");
}

TEST_F(JournalTest, ErrorsNameThePath) {
  const std::string inside_nothing = folder_.file("missing/journal.bin");
  EXPECT_THAT(JournalWriter::open(inside_nothing).error().message,
              HasSubstr("cannot open journal " + inside_nothing + ": No such file or directory"));
  EXPECT_THAT(JournalReader("/dev/null").read(1).error().message, HasSubstr("journal /dev/null is not a regular file"));
}

}  // namespace
}  // namespace assay
