// Tensor cores and what feeds them from shared memory.
#pragma once
#include "common.cuh"

// c += a * b: 16 rows of 16 f16 of `a`, and as many of eight columns of `b`.
INLINE void multiply(float* c, const u32* a, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four matrices of 8x8 halves from shared memory; a lane gives the address of a row.
INLINE void load_matrices(u32 (&m)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(address)
                 : "memory");
}
INLINE void load_transposed(u32 (&m)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(address)
                 : "memory");
}

// Copies 16 bytes to shared memory, or zeros if not `is_there`, without waiting.
INLINE void copy_16(u32 to, const void* from, bool is_there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(is_there ? 16 : 0) : "memory");
}
// Ends a group of copies; `await_copies<N>` waits for all but the last N groups of this thread.
INLINE void end_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> INLINE void await_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

INLINE u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }
