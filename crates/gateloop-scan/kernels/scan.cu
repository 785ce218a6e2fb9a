// The scan: h[t] = a[t] h[t-1] + b[t] along the pass, for every channel.
#include "pass.cuh"

template <class E>
struct ScanParams {
  View<const E> a, b;
  View<E> h;
  const Wide<E>* h0; // [B, C], or null for a state of zero
  Wide<E>* h_last;   // [B, C], or null
  Starts starts;
  Shape shape;
};

template <class E, class G>
struct Scan {
  using Tile = G;
  using Params = ScanParams<E>;
  using State = Wide<E>;
  static constexpr int N = G::LANE;
  static constexpr int ARRAY = G::POSITIONS * G::CHANNELS * int(sizeof(E));
  static constexpr int STAGE_BYTES = 2 * ARRAY;
  using M = Maps<State, G::WARPS, N>;

  DEVICE static const State* initial(const Params& p) { return p.h0; }

  DEVICE static void stage(const Params& p, const Shape& shape, const Place& place, unsigned char* memory) {
    ::stage<E, G>(memory, p.a, shape, place, 0);
    ::stage<E, G>(memory + ARRAY, p.b, shape, place, 0);
  }

  // Without a state before it, the first token of the pass has no use for its decay.
  DEVICE static bool cut(const Params& p, const Place& place, i64 position) {
    return (position == 0 && !p.h0) || begins(p.starts, place.batch, position);
  }

  DEVICE static void map(const Params& p, const Shape& shape, const Place& place, const unsigned char* memory,
                         M& maps, int warp, int lane) {
    const int first = warp * G::ROWS;
    Map<State, N> map;
    map.reset();
#pragma unroll
    for (int r = 0; r < G::ROWS; r++) {
      State a[N], b[N];
      read_row<E, N>(memory, first + r, lane, a);
      read_row<E, N>(memory + ARRAY, first + r, lane, b);
      const bool is_cut = cut(p, place, place.start + first + r);
#pragma unroll
      for (int i = 0; i < N; i++) map.then(i, a[i], b[i], is_cut);
      map.cut = map.cut || is_cut;
    }
    put(maps, warp, lane, map);
  }

  DEVICE static void emit(const Params& p, const Shape& shape, const Place& place, const unsigned char* memory,
                          const M& maps, int warp, int lane) {
    const int first = warp * G::ROWS;
    State h[N];
    state_before(maps, warp, lane, h);
#pragma unroll
    for (int r = 0; r < G::ROWS; r++) {
      const i64 position = place.start + first + r;
      State a[N], b[N];
      read_row<E, N>(memory, first + r, lane, a);
      read_row<E, N>(memory + ARRAY, first + r, lane, b);
      const bool is_cut = cut(p, place, position);
#pragma unroll
      for (int i = 0; i < N; i++) h[i] = apply(a[i], b[i], is_cut, h[i]);
      if (position < shape.seqlen) {
        write_row(p.h, shape, place, position, lane, h);
        if (p.h_last && position + 1 == shape.seqlen) write_state(p.h_last, shape, place, lane, h);
      }
    }
  }
};

#define SCAN(name, E, ...)                                                                 \
  KERNEL((Geometry<__VA_ARGS__>::THREADS), (Geometry<__VA_ARGS__>::BLOCKS))                \
  scan_##name(const ScanParams<E> params, const Workspace work) {                          \
    run_pass<Scan<E, Geometry<__VA_ARGS__>>>(params, params.shape, work);                  \
  }

SCAN(f32, float, 7, 10, 2, 3, 2)
SCAN(f64, double, 7, 8, 1, 3, 2)
SCAN(c64, Complex<float>, 7, 8, 1, 3, 2)
SCAN(c128, Complex<double>, 7, 4, 1, 3, 2)
SCAN(bf16, bf16, 6, 10, 4, 3, 2)
SCAN(f16, f16, 6, 10, 4, 3, 2)

// For devices that give a block 99 KB of shared memory.
SCAN(f32_small, float, 7, 10, 1, 3, 2)
SCAN(c128_small, Complex<double>, 7, 3, 1, 3, 1)
SCAN(bf16_small, bf16, 6, 10, 2, 3, 2)
SCAN(f16_small, f16, 6, 10, 2, 3, 2)
