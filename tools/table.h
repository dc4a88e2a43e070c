/* SPDX-License-Identifier: Apache-2.0
 *
 * A table on stdout, row by row, cell by cell. Running out of memory on the way is kept and told at the end.
 */
#ifndef DZ_TABLE_H
#define DZ_TABLE_H

#include <stdbool.h>
#include <stddef.h>

struct table {
  struct libscols_table *columns; /* NULL: no memory */
  struct libscols_line *row;
  size_t cell;
};

/* Column names with spaces between; one that begins with '>' is flush right. */
void dz_table_begin(struct table *table, const char *columns);
void dz_table_row(struct table *table);
void dz_table_cell(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Prints it and ends it; false, and says so, if there was no memory for it. */
bool dz_table_print(struct table *table);

#endif
