// Rows of a matrix in registers: a warp, or a few, take a row, load it at once and sum over it.
#pragma once
#include "element.cuh"

constexpr int ROW_THREADS = 256, ROW_WARPS = ROW_THREADS / 32;
// Numbers of a row that a lane holds; a row of more has two, four or eight warps.
constexpr int HELD = 16;

// The threads of a block that have a row together, and which of them a thread is.
struct Team {
  u32 warps, lanes, lane, number, teams;

  DEVICE static Team of(u32 warps) {
    const u32 lanes = 32 * warps;
    return {warps, lanes, threadIdx.x % lanes, threadIdx.x / lanes, ROW_WARPS / warps};
  }
  // Of N neighbours, the first: where the lane's numbers from `i` on lie in a row.
  template <int N>
  DEVICE u32 column(int i) const { return (u32(i) / N * lanes + lane) * N; }
};

// Whether others read the same.
enum Read { ONCE, OFTEN };

template <class E, int N, Read HOW = ONCE>
DEVICE void load_elements(const E* p, Wide<E> (&v)[N]) {
  using Raw = typename RawOf<N * int(sizeof(E))>::type;
  union { E element[N]; Raw raw; } all;
  auto* raw = reinterpret_cast<const Raw*>(p);
  all.raw = HOW == ONCE ? load_once(raw) : load_often(raw);
#pragma unroll
  for (int i = 0; i < N; i++) v[i] = widen(all.element[i]);
}
// For whoever comes next, which reads them at once.
template <class E, int N>
DEVICE void leave_elements(E* p, const Wide<E> (&v)[N]) {
  using Raw = typename RawOf<N * int(sizeof(E))>::type;
  union { E element[N]; Raw raw; } all;
#pragma unroll
  for (int i = 0; i < N; i++) narrow(v[i], all.element[i]);
  store_kept(reinterpret_cast<Raw*>(p), all.raw);
}

// A row of `width` numbers, a multiple of N, by all threads of its team; beyond its end, and of a null one, zeros.
template <int N, Read HOW = ONCE, class E>
DEVICE void load_row(const Team& team, const E* row, u32 width, Wide<E> (&v)[HELD]) {
#pragma unroll
  for (int i = 0; i < HELD; i += N) {
    Wide<E> few[N] = {};
    const u32 c = team.column<N>(i);
    if (row && c < width) load_elements<E, N, HOW>(row + c, few);
#pragma unroll
    for (int j = 0; j < N; j++) v[i + j] = few[j];
  }
}
template <int N, class E>
DEVICE void leave_row(const Team& team, E* row, u32 width, const Wide<E> (&v)[HELD]) {
#pragma unroll
  for (int i = 0; i < HELD; i += N) {
    Wide<E> few[N];
#pragma unroll
    for (int j = 0; j < N; j++) few[j] = v[i + j];
    const u32 c = team.column<N>(i);
    if (c < width) leave_elements<E, N>(row + c, few);
  }
}

template <class R, int K>
struct TeamSums {
  R of[ROW_WARPS][K];
};
// What the threads of a team have, added up: in one order, the same for all of them. All threads of the block come to it.
template <class R, int K>
DEVICE void sum_over(const Team& team, TeamSums<R, K>& shared, R (&v)[K]) {
#pragma unroll
  for (int k = 0; k < K; k++) {
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) v[k] += lane_across(v[k], mask);
  }
  if (team.warps == 1) return;
  const u32 warp = threadIdx.x / 32;
  if (threadIdx.x % 32 == 0) {
#pragma unroll
    for (int k = 0; k < K; k++) shared.of[warp][k] = v[k];
  }
  block_barrier();
#pragma unroll
  for (int k = 0; k < K; k++) {
    v[k] = R(0);
    for (u32 w = 0; w < team.warps; w++) v[k] += shared.of[team.number * team.warps + w][k];
  }
  block_barrier(); // before the next sums are put there
}
