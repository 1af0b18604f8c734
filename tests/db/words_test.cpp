// The words of queue.db are those of spec/words.h: lists in CHECK constraints, and tables that every open fills.
#include "db/known_words.h"

#include <regex>

#include "db/run_rows.h"
#include "store_fixture.h"

namespace assay {
namespace {

using testing::HasSubstr;
using testing::UnorderedElementsAreArray;

// "table.column" -> the words of its CHECK list, in the file as this program leaves it.
std::map<std::string, std::vector<std::string>> check_lists(Database& db) {
  std::map<std::string, std::vector<std::string>> lists;
  auto tables = db.prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND sql IS NOT NULL");
  tables->bind();
  static const std::regex column(R"((\w+)\s+TEXT[^,(]*CHECK\s*\(\s*(\w+)\s+IN\s*\(([^)]*)\))"), word("'([^']*)'");
  while (*tables->step()) {
    const std::string sql = tables->text(1);
    for (std::sregex_iterator it(sql.begin(), sql.end(), column), end; it != end; ++it) {
      EXPECT_EQ((*it)[1], (*it)[2]) << sql;
      const std::string listed = (*it)[3];
      auto& words = lists[tables->text(0) + "." + it->str(1)];
      for (std::sregex_iterator w(listed.begin(), listed.end(), word); w != end; ++w) words.push_back(w->str(1));
    }
  }
  return lists;
}

class WordsTest : public StoreTest {
 protected:
  Database raw() {
    auto opened = Database::open(path(), Database::Synchronous::full);
    if (!opened.ok()) throw std::runtime_error(opened.error().message);
    return std::move(*opened);
  }
};

template <WordEnum E>
void expect_words(std::map<std::string, std::vector<std::string>>& lists, const std::string& column) {
  EXPECT_THAT(lists[column], UnorderedElementsAreArray(word_texts<E>))
      << "the CHECK list of " << column << " in queue.db is not the list of the " << title_of(E{})
      << "s in spec/words.h or spec/run_config.h: add a migration (db/migrations.cpp) that copies the table with the "
         "new "
         "list, as db/known_words.sql does, and with all other constraints and indexes that speak of these words";
  lists.erase(column);
}

TEST_F(WordsTest, CheckListsAreTheWordLists) {
  Database db = raw();
  auto lists = check_lists(db);
  expect_words<RunState>(lists, "runs.state");
  expect_words<Backend>(lists, "runs.backend");
  expect_words<AttemptState>(lists, "attempts.state");
  expect_words<AttemptResult>(lists, "attempts.result");
  expect_words<WorkerState>(lists, "workers.state");
  expect_words<DeviceKind>(lists, "devices.kind");
  expect_words<OnFailure>(lists, "experiments.on_failure");
  for (const auto& [column, words] : lists)
    ADD_FAILURE() << column << " has a CHECK list that no word list is compared with";
}

// What the other constraints and the indexes say of run states, tried with every state.
TEST_F(WordsTest, EveryRunStateCanBeStoredAndIsListedByAnIndex) {
  enqueue(1);
  Database db = raw();
  for (const std::string_view state : word_texts<RunState>) {
    const bool ended = is_terminal(*find_word<RunState>(state));
    const Status stored =
        db.run("UPDATE runs SET state = ?, finished_at = ?", state, ended ? std::optional<int64_t>(5) : std::nullopt);
    EXPECT_TRUE(stored.ok()) << state << ": " << stored.error().message
                             << "; its stage in spec/words.h and the constraints of table runs must agree";
  }
  for (const RunStage stage : {RunStage::active, RunStage::waiting, RunStage::ended}) {
    auto plan = db.prepare("EXPLAIN QUERY PLAN SELECT r.id FROM runs r WHERE " + in_stage(stage));
    ASSERT_TRUE(plan.ok()) << plan.error().message;
    plan->bind();
    ASSERT_TRUE(*plan->step());
    EXPECT_THAT(plan->text(3), HasSubstr("USING"))
        << "no partial index of table runs has the condition \"" << in_stage(stage)
        << "\": a migration must make it anew with the states of this stage, in the order of spec/words.h";
  }
}

TEST_F(WordsTest, EveryOpenTeachesTheFileWhatTheProgramKnows) {
  const auto known = [&](const std::string& table) {
    Database db = raw();
    std::vector<std::string> words;
    auto rows = db.prepare("SELECT word FROM " + table);
    rows->bind();
    while (*rows->step()) words.push_back(rows->text(0));
    return words;
  };
  EXPECT_THAT(known("failure_reasons"), UnorderedElementsAreArray(word_texts<FailureReason>));
  EXPECT_THAT(known("stop_reasons"), UnorderedElementsAreArray(word_texts<StopReason>));
  EXPECT_THAT(known("phases"), UnorderedElementsAreArray(word_texts<Phase>));
  EXPECT_THAT(known("event_kinds"), UnorderedElementsAreArray(word_texts<EventKind>));
  store_.reset();
  ASSERT_TRUE(raw().run("DELETE FROM failure_reasons WHERE word = 'crashed'").ok());  // as an older program left it
  reopen();
  EXPECT_THAT(known("failure_reasons"), UnorderedElementsAreArray(word_texts<FailureReason>));
}

TEST_F(WordsTest, AFileWithTheWordsOfANewerProgramIsRefusedByName) {
  store_.reset();
  ASSERT_TRUE(raw().run("INSERT INTO failure_reasons VALUES ('melted')").ok());
  const auto opened = RunStore::open(path(), clock_);
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().code, ErrorCode::failed_precondition);
  EXPECT_THAT(
      opened.error().message,
      HasSubstr("written by a newer Assay: it has the failure reason \"melted\", which this program does not know"));
}

TEST_F(WordsTest, NothingElseCanBeWritten) {
  add_worker();
  const auto runs = enqueue(1);
  start(runs[0]);
  Database db = raw();
  EXPECT_THAT(db.run("UPDATE attempts SET phase = 'nap'").error().message, HasSubstr("FOREIGN KEY"));
  EXPECT_THAT(db.run("UPDATE attempts SET stop_reason = 'whim'").error().message, HasSubstr("FOREIGN KEY"));
  EXPECT_THAT(db.run("UPDATE attempts SET state = 'stopping'").error().message, HasSubstr("stopping_has_reason"));
  EXPECT_THAT(db.run("UPDATE attempts SET state = 'ended', result = 'failed', reason = 'melted', finished_at = 5")
                  .error()
                  .message,
              HasSubstr("FOREIGN KEY"));
  EXPECT_THAT(db.run("INSERT INTO events (at, experiment_id, run_id, attempt_id, kind, from_state, to_state, cause) "
                     "VALUES (1, 0, 0, 0, 'eclipse', '', '', '')")
                  .error()
                  .message,
              HasSubstr("the feed knows no such kind of event"));
}

// Of a damaged row, as only a program without the constraints can have written it.
TEST_F(WordsTest, AnUnknownWordOfARowIsDamageThatIsNamed) {
  add_worker();
  const auto runs = enqueue(1);
  start(runs[0]);
  {
    Database db = raw();
    ASSERT_TRUE(db.run("DROP TRIGGER events_of_known_kinds").ok());
    ASSERT_TRUE(db.run("INSERT INTO events (at, experiment_id, run_id, attempt_id, kind, from_state, to_state, cause) "
                       "VALUES (1, 0, 0, 0, 'eclipse', '', '', '')")
                    .ok());
    ASSERT_TRUE(db.run("PRAGMA foreign_keys = OFF").ok());
    ASSERT_TRUE(db.run("PRAGMA ignore_check_constraints = ON").ok());
    ASSERT_TRUE(db.run("UPDATE attempts SET stop_reason = 'whim'").ok());
    ASSERT_TRUE(db.run("UPDATE workers SET state = 'asleep'").ok());
    ASSERT_TRUE(db.run("UPDATE devices SET kind = 'tpu'").ok());
  }
  const auto named = [](const auto& result, const std::string& what) {
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().code, ErrorCode::data_loss);
    EXPECT_THAT(result.error().message, HasSubstr("queue.db is damaged: column " + what));
  };
  named(store_->events_after(0, 0), "events.kind: \"eclipse\" is no event kind");
  named(store_->live_attempts(), "attempts.stop_reason: \"whim\" is no stop reason");
  named(store_->list_workers(), "workers.state: \"asleep\" is no worker state");
  named(store_->list_devices(), "devices.kind: \"tpu\" is no device kind");
}

}  // namespace
}  // namespace assay
