#include "worker/attempt/journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bit>
#include <cstring>
#include <filesystem>
#include <limits>

#include "base/file.h"
#include "tests/support/kill_points.h"
#include "tests/support/put_file.h"
#include "tests/support/temp_folder.h"

namespace assay {
namespace {

using testing::HasSubstr;

StepMetrics metrics_of(int64_t step) {
  const auto x = static_cast<double>(step);
  StepMetrics m;
  m.step = step;
  m.loss = 10.5 - x / 7;
  m.dt_ms = 100 + x;
  m.tok_per_sec = 5e5 / (1 + x);
  m.mfu = 35.5;
  m.lr_scale = 0.25;
  m.grad_norm = 1.0 / 3;
  m.expert_load_min = 0.5;
  m.expert_load_max = 2.5;
  m.peak_mem_mib = 4096.125;
  if (step % 2 == 1) m.val_loss = 9.75;
  m.unix_ms = 1'771'948'186'000 + step;
  return m;
}

// Doubles by their bits, so that NaN equals NaN and -0 does not equal 0.
auto bits(const StepMetrics& m) {
  const auto b = [](double x) { return std::bit_cast<uint64_t>(x); };
  return std::tuple(m.step, b(m.loss), b(m.dt_ms), b(m.tok_per_sec), b(m.mfu), b(m.lr_scale), b(m.grad_norm),
                    b(m.expert_load_min), b(m.expert_load_max), b(m.peak_mem_mib), b(m.val_loss), m.unix_ms);
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
  ASSERT_EQ(bytes.size(), 2 * journal_record_size);
  const std::string second = bytes.substr(journal_record_size);
  EXPECT_EQ(second.substr(0, 4), std::string("\x61\0\0\0", 4));  // 97 bytes of payload
  uint32_t crc = 0;
  std::memcpy(&crc, second.data() + 4, 4);
  EXPECT_EQ(crc, crc32(second.substr(8)));
  EXPECT_EQ(second.substr(8, 8), std::string("\2\0\0\0\0\0\0\0", 8));     // sequence
  EXPECT_EQ(second.substr(16, 9), std::string("\1\1\0\0\0\0\0\0\0", 9));  // version 1, step 1
  double loss = 0;
  std::memcpy(&loss, second.data() + 25, 8);
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
  for (size_t size = 2 * journal_record_size; size < whole.size(); ++size) {
    SCOPED_TRACE(size);
    set_content(whole.substr(0, size));
    const int good = static_cast<int>(size / journal_record_size);
    expect_steps(read_all(), good);
    append(good, 4);
    EXPECT_EQ(content(), whole);
  }
}

TEST_F(JournalTest, FlippedByteInTheLastRecordDropsOnlyIt) {
  append(0, 3);
  const std::string whole = content();
  for (size_t at = 2 * journal_record_size; at < whole.size(); ++at) {
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
  for (size_t at = journal_record_size; at < 2 * journal_record_size; ++at) {
    SCOPED_TRACE(at);
    std::string bad = whole;
    bad[at] ^= 0x01;
    set_content(bad);
    JournalReader reader(path_);
    EXPECT_EQ(reader.read(10)->size(), 1u);  // the good record comes first
    const auto records = reader.read(10);
    ASSERT_FALSE(records.ok());
    EXPECT_EQ(records.error().code, ErrorCode::data_loss);
    EXPECT_THAT(records.error().message, HasSubstr(path_ + " is damaged at byte 113 (record 2)"));
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
  set_content(content().substr(0, journal_record_size));
  EXPECT_THAT(reader.read(10).error().message, HasSubstr("the file ends here, but 339 bytes were read before"));
  std::filesystem::remove(path_);
  EXPECT_THAT(reader.read(10).error().message, HasSubstr("cannot open journal " + path_));
}

TEST_F(JournalTest, StopsAtItsSizeLimitAndStaysReadable) {
  auto writer = JournalWriter::open(path_, 3 * journal_record_size + 50);
  for (int step = 0; step < 3; ++step) ASSERT_TRUE(writer->append(metrics_of(step)).ok());
  const Status full = writer->append(metrics_of(3));
  ASSERT_FALSE(full.ok());
  EXPECT_EQ(full.error().code, ErrorCode::resource_exhausted);
  EXPECT_THAT(full.error().message, HasSubstr("holds 3 records and is at its limit of 389 bytes"));
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
    const rlimit limit{2 * journal_record_size + 40, RLIM_INFINITY};
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

TEST_F(JournalTest, ErrorsNameThePath) {
  const std::string inside_nothing = folder_.file("missing/journal.bin");
  EXPECT_THAT(JournalWriter::open(inside_nothing).error().message,
              HasSubstr("cannot open journal " + inside_nothing + ": No such file or directory"));
  EXPECT_THAT(JournalReader("/dev/null").read(1).error().message, HasSubstr("journal /dev/null is not a regular file"));
}

}  // namespace
}  // namespace assay
