/* SPDX-License-Identifier: Apache-2.0
 *
 * Tables by libsmartcols.
 */
#include "table.h"

#include <libsmartcols.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tool.h"

static void fail(struct table *table) {
  scols_unref_table(table->columns);
  table->columns = NULL;
}

void dz_table_begin(struct table *table, const char *columns) {
  *table = (struct table){.columns = scols_new_table()};
  while (table->columns != NULL && *columns != '\0') {
    char name[32];
    size_t length = strcspn(columns, " ");
    bool right = *columns == '>';
    snprintf(name, sizeof name, "%.*s", (int)length - right, columns + right);
    if (scols_table_new_column(table->columns, name, 0, right ? SCOLS_FL_RIGHT : 0) == NULL) fail(table);
    columns += length + (columns[length] == ' ');
  }
}

void dz_table_row(struct table *table) {
  if (table->columns == NULL) return;
  table->cell = 0;
  table->row = scols_table_new_line(table->columns, NULL);
  if (table->row == NULL) fail(table);
}

void dz_table_cell(struct table *table, const char *format, ...) {
  if (table->columns == NULL) return;
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (scols_line_set_data(table->row, table->cell++, text) != 0) fail(table);
}

bool dz_table_print(struct table *table) {
  bool whole = table->columns != NULL && scols_print_table(table->columns) == 0;
  fail(table);
  if (!whole) dz_say("no memory for the table");
  return whole;
}
