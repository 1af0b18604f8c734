#include "base/output_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <future>

#include "base/file.h"
#include "tests/support/temp_folder.h"

namespace assay {
namespace {

namespace fs = std::filesystem;

class OutputFileTest : public testing::Test {
 protected:
  static std::string content(const std::string& path) { return read_file(path).value(); }
  static mode_t mode(const std::string& path) {
    struct stat info {};
    EXPECT_EQ(::stat(path.c_str(), &info), 0);
    return info.st_mode & 07777;
  }
  std::string existing(const std::string& name, const std::string& text = "old") {
    EXPECT_TRUE(write_file_atomically(folder_.file(name), text).ok());
    return folder_.file(name);
  }
  size_t files() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(folder_.path()), fs::directory_iterator()));
  }
  TempFolder folder_;
};

TEST_F(OutputFileTest, AppearsWhenItIsComplete) {
  const std::string path = folder_.file("f");
  {
    auto file = OutputFile::open(path);
    ASSERT_TRUE(file.ok()) << file.error().message;
    (*file)->stream() << "given up";
  }
  EXPECT_EQ(files(), 0u) << "what was not committed leaves nothing";
  auto file = OutputFile::open(path);
  (*file)->stream() << std::string(200'000, 'x');
  EXPECT_FALSE(fs::exists(path));
  ASSERT_TRUE((*file)->commit().ok());
  file->reset();
  EXPECT_EQ(content(path), std::string(200'000, 'x'));
  EXPECT_EQ(files(), 1u);
}

TEST_F(OutputFileTest, KeepsTheModeOfAFileThatIsReplaced) {
  const std::string path = existing("f");
  for (const mode_t wanted : {0600, 0755, 0640}) {
    ASSERT_EQ(::chmod(path.c_str(), wanted), 0);
    ASSERT_TRUE(write_output_file(path, "new").ok());
    EXPECT_EQ(mode(path), wanted);
  }
  EXPECT_EQ(content(path), "new");
}

TEST_F(OutputFileTest, FollowsSymbolicLinksAndKeepsThem) {
  ASSERT_TRUE(make_folders(folder_.file("data")).ok());
  const std::string target = existing("data/target");
  fs::create_symlink("data/target", folder_.file("link"));  // relative to the link's folder
  fs::create_symlink(folder_.file("link"), folder_.file("to_link"));
  ASSERT_TRUE(write_output_file(folder_.file("to_link"), "new").ok());
  EXPECT_EQ(content(target), "new");
  EXPECT_EQ(fs::read_symlink(folder_.file("link")), "data/target");
  EXPECT_EQ(fs::read_symlink(folder_.file("to_link")), folder_.file("link"));

  fs::create_symlink("data/not_yet", folder_.file("dangling"));
  ASSERT_TRUE(write_output_file(folder_.file("dangling"), "first").ok());
  EXPECT_EQ(content(folder_.file("data/not_yet")), "first");
  EXPECT_TRUE(fs::is_symlink(folder_.file("dangling")));

  fs::create_symlink(folder_.file("b"), folder_.file("a"));
  fs::create_symlink(folder_.file("a"), folder_.file("b"));
  const auto loop = OutputFile::open(folder_.file("a"));
  ASSERT_FALSE(loop.ok());
  EXPECT_THAT(loop.error().message, testing::HasSubstr("Too many levels of symbolic links"));
}

TEST_F(OutputFileTest, OtherNamesOfAFileSeeTheNewContent) {
  const std::string path = existing("f", "old and longer");
  fs::create_hard_link(path, folder_.file("other"));
  ASSERT_TRUE(write_output_file(path, "new").ok());
  EXPECT_EQ(content(folder_.file("other")), "new");
}

TEST_F(OutputFileTest, AReadersFifoGetsTheBytes) {
  const std::string path = folder_.file("fifo");
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  auto reader = std::async(std::launch::async, [&] { return content(path); });
  ASSERT_TRUE(write_output_file(path, "through").ok());
  EXPECT_EQ(reader.get(), "through");
  EXPECT_TRUE(fs::is_fifo(path));
}

TEST_F(OutputFileTest, AFullDeviceIsAnErrorAndStaysADevice) {
  const Status status = write_output_file("/dev/full", "x");
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::resource_exhausted);
  EXPECT_EQ(status.error().message, "cannot write to /dev/full: No space left on device");
  EXPECT_TRUE(fs::is_character_file("/dev/full"));
  fs::create_symlink("/dev/full", folder_.file("link"));
  EXPECT_FALSE(write_output_file(folder_.file("link"), "x").ok());
  EXPECT_TRUE(write_output_file("/dev/null", "x").ok());
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
}

TEST_F(OutputFileTest, AnOpenFileIsAddedTo) {
  const std::string path = existing("f", "before, ");
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
  ASSERT_TRUE(write_output_file("/dev/fd/" + std::to_string(fd.get()), "after").ok());
  EXPECT_EQ(content(path), "before, after");
}

TEST_F(OutputFileTest, ErrorsSayWhatIsWrong) {
  EXPECT_EQ(OutputFile::open(folder_.path()).error().message, folder_.path() + " is a folder; name a file in it");
  const auto missing = OutputFile::open(folder_.file("no/f"));
  EXPECT_EQ(missing.error().code, ErrorCode::not_found);
  EXPECT_THAT(missing.error().message, testing::HasSubstr("no/f: No such file or directory"));
  EXPECT_FALSE(OutputFile::open("").ok());
  if (::geteuid() == 0) return;  // to root nothing is read-only
  const std::string path = existing("f");
  ASSERT_EQ(::chmod(path.c_str(), 0444), 0);
  EXPECT_EQ(OutputFile::open(path).error().code, ErrorCode::permission_denied) << "a rename would not ask";
}

TEST(FdStream, RemembersWhyAWriteFailed) {
  const UniqueFd fd(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  FdStream out(fd.get());
  EXPECT_TRUE(check_written(out, "standard output").ok());
  for (int i = 0; i < 100'000; ++i) out << "a line\n";  // more than the buffer: it fails long before the end
  errno = 0;
  const Status status = check_written(out, "standard output");
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().message, "cannot write to standard output: No space left on device");
}

}  // namespace
}  // namespace assay
