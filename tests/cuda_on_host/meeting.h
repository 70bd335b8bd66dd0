#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "device.h"
#include "fibre.h"

// What the threads of a block (block.cpp) and their meetings (meeting.cpp) share.

namespace cuda_on_host {

// What a thread waits at.
struct Meeting {
  const char* name = "";
  Place place;
  unsigned mask = 0;  // of lanes; 0 for the whole block

  bool operator==(const Meeting& other) const {
    return std::strcmp(name, other.name) == 0 && mask == other.mask &&
        place.line() == other.place.line() && place.column() == other.place.column() &&
        std::strcmp(place.file_name(), other.place.file_name()) == 0;
  }
  std::string text() const {
    return c10::str(name, " (", place.file_name(), ":", place.line(), ")");
  }
};

struct Thread {
  Fibre fibre;
  bool waits = false;
  Meeting meeting;
  uint64_t value = 0;  // what it brings there
};

struct Warp {
  unsigned present, waiting;  // lanes that have not ended, and those at a meeting of lanes
  int epoch;
  // Of the last meeting under each mask, by its lowest lane: before all have read what it gave,
  // other lanes of the warp may meet.
  unsigned lanes[32];
  uint64_t values[32][32];
};

// Of the block that runs.
extern std::vector<std::unique_ptr<Thread>> threads;
extern std::vector<Warp> warps;
extern std::vector<int> ready;             // threads that do not wait
extern size_t count, present, at_barrier;  // threads: all, those that have not ended, those there

void go_on(size_t id);

// After the thread that has run waits or has ended.
void release();

// Where all wait: a deadlock.
void fail_of_waiting();

}  // namespace cuda_on_host
