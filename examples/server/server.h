/* SPDX-License-Identifier: Apache-2.0
 *
 * What the server consists of.
 */
#ifndef SERVER_SERVER_H
#define SERVER_SERVER_H

#include "cache.h"
#include "device.h"
#include "keeper.h"
#include "model.h"
#include "nap.h"
#include "options.h"
#include "tally.h"
#include "tenant.h"

struct server {
  struct options options;
  drowse_heap *heap;
  struct device device;
  struct model model;
  struct cache cache;
  struct keeper keeper;
  struct nap nap;
  struct tenant tenant;
  struct tally tally;
};

#endif
