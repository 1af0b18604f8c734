#include "db/sqlite.h"

#include <cmath>
#include <limits>

#include "store_fixture.h"

namespace assay {
namespace {

using testing::HasSubstr;

class SqliteTest : public testing::Test {
 protected:
  SqliteTest() : db_(open()) {
    auto status = db_.run("CREATE TABLE t (k INTEGER PRIMARY KEY, v ANY) STRICT");
    if (!status.ok()) throw std::runtime_error(status.error().message);
  }
  std::string path() const { return folder_.path() + "/test.db"; }
  Database open() {
    auto db = Database::open(path(), Database::Synchronous::full);
    if (!db.ok()) throw std::runtime_error(db.error().message);
    return std::move(*db);
  }
  int64_t rows() { return *db_.integer("SELECT count(*) FROM t"); }
  // Leaves room for a few pages only: SQLITE_FULL without filling a disk.
  void fill_up() {
    int64_t pages = *db_.integer("PRAGMA page_count");
    ASSERT_TRUE(db_.run_script(("PRAGMA max_page_count = " + std::to_string(pages + 1)).c_str()).ok());
  }

  TempFolder folder_;
  Database db_;
};

TEST_F(SqliteTest, ValuesComeBackAsTheyWent) {
  auto select = db_.prepare("SELECT ?, ?, ?, ?, ?, ?, ?");
  ASSERT_TRUE(select.ok());
  std::string text("a\0b'\"", 5);
  select->bind(int64_t{-5}, true, 1.5, text, std::optional<int64_t>(), std::string_view(),
               std::numeric_limits<double>::quiet_NaN());
  ASSERT_TRUE(*select->step());
  EXPECT_EQ(select->integer(0), -5);
  EXPECT_EQ(select->integer(1), 1);
  EXPECT_EQ(select->real(2), 1.5);
  EXPECT_EQ(select->text(3), text);
  EXPECT_TRUE(select->is_null(4));
  EXPECT_FALSE(select->is_null(5)) << "empty text is not NULL";
  EXPECT_TRUE(select->is_null(6));
  EXPECT_TRUE(std::isnan(select->real(6)));
}

TEST_F(SqliteTest, AStatementMayBeOnLoanTwice) {
  ASSERT_TRUE(db_.run("INSERT INTO t VALUES (1, 'a'), (2, 'b')").ok());
  auto outer = db_.prepare("SELECT k FROM t ORDER BY k");
  auto inner = db_.prepare("SELECT k FROM t ORDER BY k");
  ASSERT_TRUE(*outer->bind().step());
  ASSERT_TRUE(*inner->bind().step());
  ASSERT_TRUE(*inner->step());
  EXPECT_EQ(outer->integer(0), 1);
  EXPECT_EQ(inner->integer(0), 2);
}

TEST_F(SqliteTest, ErrorsNameFileStatementAndCode) {
  auto bad = db_.prepare("SELEKT 1");
  ASSERT_FALSE(bad.ok());
  EXPECT_EQ(bad.error().code, ErrorCode::internal);
  EXPECT_THAT(bad.error().message, HasSubstr(path()));
  EXPECT_THAT(bad.error().message, HasSubstr("in: SELEKT 1"));
  auto twice = db_.run("INSERT INTO t VALUES (1, 'a'), (1, 'b')");
  ASSERT_FALSE(twice.ok());
  EXPECT_EQ(twice.error().code, ErrorCode::failed_precondition);
  EXPECT_THAT(twice.error().message, HasSubstr("SQLite code 1555"));  // SQLITE_CONSTRAINT_PRIMARYKEY
}

TEST_F(SqliteTest, AParameterTooManyIsAnError) {
  auto statement = db_.prepare("SELECT ?");
  EXPECT_FALSE(statement->bind(1, 2).step().ok());
  EXPECT_TRUE(statement->bind(1).step().ok()) << "and the next bind starts afresh";
}

TEST_F(SqliteTest, TransactionRollsBackUnlessCommitted) {
  {
    auto transaction = Transaction::begin(db_);
    ASSERT_TRUE(db_.run("INSERT INTO t VALUES (1, 'a')").ok());
  }
  EXPECT_EQ(rows(), 0);
  auto transaction = Transaction::begin(db_);
  ASSERT_TRUE(db_.run("INSERT INTO t VALUES (1, 'a')").ok());
  ASSERT_TRUE(transaction->commit().ok());
  EXPECT_EQ(rows(), 1);
}

TEST_F(SqliteTest, ASavepointUndoesItsOwnWritesAlone) {
  auto transaction = Transaction::begin(db_);
  ASSERT_TRUE(db_.run("INSERT INTO t VALUES (1, 'a')").ok());
  Status inner;
  auto body = [&]() -> Status {
    ASSAY_TRY(db_.run("INSERT INTO t VALUES (2, 'b')"));
    return db_.run("INSERT INTO t VALUES (1, 'again')");
  };
  ASSERT_TRUE(transaction->attempt(body, inner).ok());
  EXPECT_FALSE(inner.ok());
  ASSERT_TRUE(transaction->commit().ok());
  EXPECT_EQ(rows(), 1);
}

TEST_F(SqliteTest, AFullDiskStopsTheWriterAndKeepsWhatWasCommitted) {
  ASSERT_TRUE(db_.run("INSERT INTO t VALUES (1, 'a')").ok());
  fill_up();
  {
    auto transaction = Transaction::begin(db_);
    ASSERT_TRUE(transaction.ok());
    auto status = db_.run("INSERT INTO t VALUES (2, ?)", std::string(100'000, 'x'));
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, ErrorCode::resource_exhausted);
    EXPECT_THAT(status.error().message,
                HasSubstr("the disk is full; free space on its file system, then restart assayd"));
  }
  auto refused = Transaction::begin(db_);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::resource_exhausted);
  EXPECT_THAT(refused.error().message, HasSubstr("nothing is written any more since an earlier write failed"));
  EXPECT_EQ(rows(), 1) << "reads go on";
  Database again = open();
  EXPECT_EQ(*again.integer("SELECT count(*) FROM t"), 1);
  EXPECT_TRUE(Transaction::begin(again).ok()) << "opened again, it writes again";
}

TEST_F(SqliteTest, AFullDiskInsideASavepointLosesTheWholeTransaction) {
  fill_up();
  auto transaction = Transaction::begin(db_);
  ASSERT_TRUE(db_.run("INSERT INTO t VALUES (1, 'a')").ok());
  Status inner;
  auto body = [&] { return db_.run("INSERT INTO t VALUES (2, ?)", std::string(100'000, 'x')); };
  auto status = transaction->attempt(body, inner);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::resource_exhausted);
}

TEST_F(SqliteTest, ABrokenInvariantDoesNotStopTheWriter) {
  {
    auto transaction = Transaction::begin(db_);
    EXPECT_FALSE(db_.run("INSERT INTO t VALUES (1, 'a'), (1, 'b')").ok());
  }
  EXPECT_TRUE(Transaction::begin(db_).ok());
}

TEST_F(SqliteTest, AForeignLockIsNamed) {
  Database other = open();
  auto held = Transaction::begin(other);
  ASSERT_TRUE(held.ok());
  ASSERT_TRUE(db_.run("PRAGMA busy_timeout = 0").ok());
  auto refused = Transaction::begin(db_);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::unavailable);
  EXPECT_THAT(refused.error().message, HasSubstr("another program holds a lock on the database"));
  ASSERT_TRUE(held->commit().ok());
  EXPECT_TRUE(Transaction::begin(db_).ok()) << "a lock is no reason to stop for good";
}

}  // namespace
}  // namespace assay
