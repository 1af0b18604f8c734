// The tables of queue.db against which the words are checked that have no CHECK list (db/known_words.sql). They hold
// what any program that has opened the file knows.
#pragma once

#include <span>
#include <string_view>

#include "base/status.h"
#include "base/words.h"
#include "db/sqlite.h"

namespace assay {

struct WordTable {
  std::string_view table;
  std::string_view title;  // of one of its words, "failure reason"
  std::span<const Word> words;
};
std::span<const WordTable> word_tables();

// Adds what this program knows and the file does not. failed_precondition, file untouched: the file has a word that
// this program does not know, so a newer one has written it.
Status learn_words(Database& database);

}  // namespace assay
