#include "db/file_check.h"

#include <linux/magic.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "db/metric_store.h"
#include "store_fixture.h"

namespace assay {
namespace {

using testing::HasSubstr;

class FileCheckTest : public testing::Test {
 protected:
  // Opens a run store at `path`, which must fail, and returns the error.
  Error open_error(const std::string& path) {
    auto store = RunStore::open(path, clock_);
    EXPECT_FALSE(store.ok());
    return store.ok() ? Error{} : store.error();
  }
  static mode_t mode_of(const std::string& path) {
    struct stat info {};
    EXPECT_EQ(::stat(path.c_str(), &info), 0) << path;
    return info.st_mode & 0777;
  }
  TempFolder folder_;
  ManualClock clock_;
};

// Permissions do not bind root: become nobody for the scope.
class AsNobody {
 public:
  AsNobody() : was_root_(::geteuid() == 0) {
    if (was_root_ && ::seteuid(65534) != 0) throw std::runtime_error("cannot become nobody");
  }
  ~AsNobody() {
    if (was_root_ && ::seteuid(0) != 0) std::abort();
  }

 private:
  bool was_root_;
};

TEST_F(FileCheckTest, FilesAreForTheOwnerOnly) {
  std::string queue = folder_.path() + "/queue.db", metrics = folder_.path() + "/metrics.db";
  auto store = RunStore::open(queue, clock_);
  ASSERT_TRUE(store.ok()) << store.error().message;
  auto metric_store = MetricStore::open(metrics, (*store)->store_id());
  ASSERT_TRUE(metric_store.ok()) << metric_store.error().message;
  for (const std::string& path : {queue, queue + "-wal", queue + "-shm", metrics, metrics + "-wal", metrics + "-shm"}) {
    EXPECT_EQ(mode_of(path), 0600u) << path;
  }
}

TEST_F(FileCheckTest, AFileThatOthersCouldReadIsNarrowed) {
  std::string path = folder_.path() + "/queue.db";
  std::ofstream(path).close();
  ASSERT_EQ(::chmod(path.c_str(), 0644), 0);
  ASSERT_TRUE(RunStore::open(path, clock_).ok());
  EXPECT_EQ(mode_of(path), 0600u);
}

TEST_F(FileCheckTest, AFolderIsRefused) {
  std::string path = folder_.path() + "/queue.db";
  std::filesystem::create_directory(path);
  Error error = open_error(path);
  EXPECT_EQ(error.code, ErrorCode::failed_precondition);
  EXPECT_THAT(error.message, HasSubstr(path + ": this is a folder"));
}

TEST_F(FileCheckTest, AFifoIsRefused) {
  std::string path = folder_.path() + "/queue.db";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  EXPECT_THAT(open_error(path).message, HasSubstr("not a regular file"));
}

TEST_F(FileCheckTest, AMissingFolderIsNamed) {
  Error error = open_error(folder_.path() + "/no/queue.db");
  EXPECT_EQ(error.code, ErrorCode::not_found);
  EXPECT_THAT(error.message, HasSubstr("the folder of the database does not exist"));
}

TEST_F(FileCheckTest, AReadOnlyFolderIsAClearError) {
  ASSERT_EQ(::chmod(folder_.path().c_str(), 0555), 0);
  AsNobody nobody;
  Error error = open_error(folder_.path() + "/queue.db");
  EXPECT_EQ(error.code, ErrorCode::permission_denied);
  EXPECT_THAT(error.message, HasSubstr("/queue.db: no permission to write the database"));
}

TEST_F(FileCheckTest, AReadOnlyFolderAroundAnExistingFileIsAClearError) {
  std::string path = folder_.path() + "/queue.db";
  ASSERT_TRUE(RunStore::open(path, clock_).ok());
  ASSERT_EQ(::chmod(folder_.path().c_str(), 0555), 0);
  if (::geteuid() == 0) {
    ASSERT_EQ(::chown(path.c_str(), 65534, 65534), 0);
  }
  AsNobody nobody;
  Error error = open_error(path);  // the file is ours, but its -wal cannot be made
  EXPECT_EQ(error.code, ErrorCode::permission_denied);
  EXPECT_THAT(error.message, HasSubstr(path));
  EXPECT_THAT(error.message, HasSubstr("check who owns the file and its folder"));
}

TEST_F(FileCheckTest, TextIsNotADatabase) {
  std::string path = folder_.path() + "/queue.db";
  std::ofstream(path) << std::string(5000, 'x');
  Error error = open_error(path);
  EXPECT_EQ(error.code, ErrorCode::data_loss);
  EXPECT_THAT(error.message, HasSubstr(path + ": the file is not an Assay database"));
}

TEST_F(FileCheckTest, NetworkFileSystemsAreNamed) {
  EXPECT_EQ(network_file_system(NFS_SUPER_MAGIC, "nfs4"), "NFS");
  EXPECT_EQ(network_file_system(0xFF534D42, "cifs"), "SMB (CIFS)");
  EXPECT_EQ(network_file_system(0xFE534D42, "smb3"), "SMB2");
  EXPECT_EQ(network_file_system(SMB_SUPER_MAGIC, "smbfs"), "SMB (smbfs)");
  EXPECT_EQ(network_file_system(AFS_SUPER_MAGIC, "afs"), "AFS");
  EXPECT_EQ(network_file_system(V9FS_MAGIC, "9p"), "9P");
  EXPECT_EQ(network_file_system(FUSE_SUPER_MAGIC, "fuse.sshfs"), "fuse.sshfs");
}

TEST_F(FileCheckTest, LocalFileSystemsPass) {
  EXPECT_EQ(network_file_system(EXT4_SUPER_MAGIC, "ext4"), "");
  EXPECT_EQ(network_file_system(TMPFS_MAGIC, "tmpfs"), "");
  EXPECT_EQ(network_file_system(BTRFS_SUPER_MAGIC, "btrfs"), "");
  EXPECT_EQ(network_file_system(OVERLAYFS_SUPER_MAGIC, "overlay"), "");
  EXPECT_EQ(network_file_system(FUSE_SUPER_MAGIC, "fuse.bindfs"), "") << "a local file system over FUSE";
  EXPECT_EQ(network_file_system(EXT4_SUPER_MAGIC, "fuse.sshfs"), "") << "the type decides, the name only refines FUSE";
}

}  // namespace
}  // namespace assay
