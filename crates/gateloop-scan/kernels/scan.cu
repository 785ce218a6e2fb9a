// The scan: h[t] = a[t] h[t-1] + b[t] along the pass, for every channel.
#include "scan.cuh"

template <class E, class G>
struct Scan : OneWay {
  using Tile = G;
  using Params = ScanParams<E>;
  using State = Wide<E>;
  static constexpr int N = G::LANE;
  static constexpr int ARRAY = G::POSITIONS * G::CHANNELS * int(sizeof(E));
  static constexpr int STAGE_BYTES = 2 * ARRAY;
  using M = Maps<State, G::WARPS, N>;

  DEVICE static const State* initial(const Params& p) { return p.h0; }

  static constexpr bool ENDS_PLAIN = true;
  static constexpr int ARRAYS = 3;
  DEVICE static void locate(const Params& p, const Place& place, i64 start, const void* (&at)[ARRAYS], int&) {
    at[0] = tile_at(p.a, place, start);
    at[1] = tile_at(p.b, place, start);
    at[2] = tile_at(p.h, place, start);
  }
  DEVICE static void stage(const Params& p, const Shape& shape, const Taken<ARRAYS>& tile, unsigned char* memory) {
    ::stage<E, G>(memory, tile.at[0], p.a.row, shape, tile.place, tile.left);
    ::stage<E, G>(memory + ARRAY, tile.at[1], p.b.row, shape, tile.place, tile.left);
  }

  // Without a state before it, the first token of the pass has no use for its decay.
  DEVICE static bool cut(const Params& p, const Place& place, int row) {
    const i64 position = G::start(place) + row;
    return (position == 0 && !p.h0) || begins(p.starts, place.batch, position);
  }
  DEVICE static bool is_plain(const Params& p, const Place& place) { return !p.starts.at && (place.chunk > 0 || p.h0); }

  template <bool PLAIN>
  DEVICE static void map(const Params& p, const Taken<ARRAYS>& tile, const unsigned char* memory, M& maps, int warp,
                         int lane, Nothing&) {
    const int first = warp * G::ROWS;
    Map<State, N> map;
    map.reset();
#pragma unroll
    for (int r = 0; r < G::ROWS; r++) {
      State a[N], b[N];
      read_row<E, N>(memory, first + r, lane, a);
      read_row<E, N>(memory + ARRAY, first + r, lane, b);
      const bool is_cut = !PLAIN && cut(p, tile.place, first + r);
#pragma unroll
      for (int i = 0; i < N; i++) map.then(i, a[i], b[i], is_cut);
      map.cut = map.cut || is_cut;
    }
    put(maps, warp, lane, map);
  }

  template <bool PLAIN>
  DEVICE static void emit(const Params& p, const Shape& shape, const Taken<ARRAYS>& tile, const unsigned char* memory,
                          const M& maps, int warp, int lane, const Nothing&) {
    const int first = warp * G::ROWS;
    Rows<E, N> out(tile.at[2], p.h.row, shape, tile.place, lane, first);
    State h[N];
    state_before(maps.x, warp, lane, h);
#pragma unroll
    for (int r = 0; r < G::ROWS; r++) {
      if (!PLAIN && first + r >= tile.left) return;
      State a[N], b[N];
      read_row<E, N>(memory, first + r, lane, a);
      read_row<E, N>(memory + ARRAY, first + r, lane, b);
      const bool is_cut = !PLAIN && cut(p, tile.place, first + r);
#pragma unroll
      for (int i = 0; i < N; i++) h[i] = apply(a[i], b[i], is_cut, h[i]);
      out.write(h);
      if (!PLAIN && p.h_last && first + r + 1 == tile.left) write_state(p.h_last, shape, tile.place, lane, h);
    }
    if (PLAIN && p.h_last && first + G::ROWS == tile.left) write_state(p.h_last, shape, tile.place, lane, h);
  }
};

#define SCAN(name, E, ...)                                                                 \
  KERNEL((Geometry<__VA_ARGS__>::THREADS), (Geometry<__VA_ARGS__>::BLOCKS))                \
  scan_##name(const ScanParams<E> params, const Workspace work) {                          \
    run_pass<Scan<E, Geometry<__VA_ARGS__>>>(params, params.shape, work);                  \
  }

SCAN(f32, float, 13, 10, 2, 3, 1)
SCAN(f64, double, 13, 10, 1, 3, 1)
SCAN(c64, Complex<float>, 13, 10, 1, 3, 1)
SCAN(c128, Complex<double>, 13, 5, 1, 3, 1)
SCAN(bf16, bf16, 13, 16, 2, 3, 1)
SCAN(f16, f16, 13, 16, 2, 3, 1)

// For so few columns that blocks wait for each other: fewer tiles in a column, and more columns.
SCAN(f32_tall, float, 14, 20, 1, 3, 1)

// For short sequences, such as the states at the ends of chunks.
SCAN(f32_short, float, 4, 4, 2, 5, 2)
SCAN(c64_short, Complex<float>, 4, 4, 1, 4, 3)

// For devices that give a block less shared memory: two of these blocks take 164 KB, one 82.
SCAN(f32_small, float, 5, 9, 2, 3, 2)
SCAN(f64_small, double, 6, 8, 1, 3, 2)
SCAN(c64_small, Complex<float>, 6, 8, 1, 3, 2)
SCAN(c128_small, Complex<double>, 6, 3, 1, 3, 2)
SCAN(bf16_small, bf16, 5, 18, 2, 3, 2)
SCAN(f16_small, f16, 5, 18, 2, 3, 2)
