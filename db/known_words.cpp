#include "db/known_words.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <set>
#include <string>
#include <vector>

#include "spec/words.h"

namespace assay {

namespace {

template <WordEnum E>
constexpr WordTable table_of(std::string_view table) {
  return {table, title_of(E{}), words_of(E{})};
}

Result<std::set<std::string, std::less<>>> stored_words(Database& database, std::string_view table) {
  ASSAY_ASSIGN(auto rows, database.prepare(fmt::format("SELECT word FROM {}", table)));
  rows.bind();
  std::set<std::string, std::less<>> words;
  while (true) {
    ASSAY_ASSIGN(const bool row, rows.step());
    if (!row) return words;
    words.insert(rows.text(0));
  }
}

}  // namespace

std::span<const WordTable> word_tables() {
  static constexpr std::array tables = {table_of<FailureReason>("failure_reasons"),
                                        table_of<StopReason>("stop_reasons"), table_of<Phase>("phases"),
                                        table_of<EventKind>("event_kinds")};
  return tables;
}

Status learn_words(Database& database) {
  std::vector<std::pair<std::string_view, std::string_view>> missing;  // table, word
  for (const WordTable& known : word_tables()) {
    ASSAY_ASSIGN(auto unknown, stored_words(database, known.table));
    for (const Word& word : known.words)
      if (const auto stored = unknown.find(word.text); stored != unknown.end())
        unknown.erase(stored);
      else
        missing.emplace_back(known.table, word.text);
    if (!unknown.empty())
      return Error{ErrorCode::failed_precondition,
                   fmt::format("{}: written by a newer Assay: it has the {} \"{}\", which this program does not know; "
                               "use the newer program",
                               database.path(), known.title, *unknown.begin())};
  }
  if (missing.empty()) return {};
  ASSAY_ASSIGN(auto transaction, Transaction::begin(database));
  for (const auto& [table, word] : missing)
    ASSAY_TRY(database.run(fmt::format("INSERT INTO {} VALUES (?)", table), word));
  return transaction.commit();
}

}  // namespace assay
