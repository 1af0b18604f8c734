// Steps as rows of table `steps`: a column for each field of spec/step_metrics.h. Private to db/.
#pragma once

#include <string>

#include "db/sqlite.h"
#include "spec/step_metrics.h"

namespace assay {

struct StepSql {
  std::string insert;     // attempt_id, then bind_step(); a step that is there stays as it is
  std::string find;       // attempt_id, step; read_step()
  std::string find_same;  // attempt_id, then bind_step(): a row if the step is stored with these values
  std::string page;       // attempt_id, first step, greatest number of rows; read_step()
};
const StepSql& step_sql();

// Binds every field, after the attempt's id. What was not recorded is NULL, and so is NaN.
void bind_step(Statement& statement, const StepMetrics& metrics);
StepMetrics read_step(const Statement& row);

// failed_precondition, with what is different: the table does not have the columns of this program.
Status check_step_table(Database& database);

}  // namespace assay
