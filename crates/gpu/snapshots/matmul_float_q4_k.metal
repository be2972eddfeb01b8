// language: metal3.1
#include <metal_stdlib>
#include <simd/simd.h>

using metal::uint;

struct _mslBufferSizes {
    uint size0;
    uint size1;
    uint size2;
    uint size3;
    uint size4;
};

typedef float V;
typedef metal::float4 V4_;
typedef metal::uint4 Quants;
struct Raw {
    Quants q;
    uint scale;
    uint shift;
    uint factors;
    char _pad4[4];
};
struct Scale {
    V d;
    V m;
};
typedef Quants type_3[1];
typedef uint type_4[1];
typedef float type_5[1];
struct Immediates {
    uint chunks;
    uint supers;
    uint cols;
    uint rows;
    uint x_stride;
    uint out_stride;
    uint out_first;
};
struct type_6 {
    float inner[1024];
};

metal::float2 half2_(
    uint w
) {
    return float2(as_type<half2>(w));
}

V4_ bytes4_(
    uint w_1
) {
    return V4_(static_cast<float>(w_1 & 255u), static_cast<float>((w_1 >> 16u) & 255u), static_cast<float>((w_1 >> 8u) & 255u), static_cast<float>(w_1 >> 24u));
}

V4_ bytes4_less(
    uint w_2,
    V offset
) {
    V4_ _e2 = bytes4_(w_2);
    return _e2 - metal::float4(offset);
}

V4_ low_nibbles4_less(
    uint w_3,
    V offset_1
) {
    V4_ _e4 = bytes4_(w_3 & 252645135u);
    return _e4 - metal::float4(offset_1);
}

V4_ high_nibbles4_less(
    uint w_4,
    V offset_2
) {
    V4_ _e6 = bytes4_((w_4 >> 4u) & 252645135u);
    return _e6 - metal::float4(offset_2);
}

V4_ low_quad(
    uint w_5,
    Scale scale
) {
    V4_ _e3 = low_nibbles4_less(w_5, 0.0);
    return metal::fma(_e3, metal::float4(scale.d), metal::float4(-(scale.m)));
}

V4_ values0_(
    Raw raw,
    Scale scale_1
) {
    V4_ _e4 = low_quad(raw.q.x, scale_1);
    return _e4;
}

V4_ high_quad(
    uint w_6,
    Scale scale_2
) {
    V4_ _e3 = high_nibbles4_less(w_6, 0.0);
    return metal::fma(_e3, metal::float4(scale_2.d), metal::float4(-(scale_2.m)));
}

V4_ values1_(
    Raw raw_1,
    Scale scale_3
) {
    V4_ _e4 = high_quad(raw_1.q.x, scale_3);
    return _e4;
}

V4_ values2_(
    Raw raw_2,
    Scale scale_4
) {
    V4_ _e4 = low_quad(raw_2.q.y, scale_4);
    return _e4;
}

V4_ values3_(
    Raw raw_3,
    Scale scale_5
) {
    V4_ _e4 = high_quad(raw_3.q.y, scale_5);
    return _e4;
}

V4_ values4_(
    Raw raw_4,
    Scale scale_6
) {
    V4_ _e4 = low_quad(raw_4.q.z, scale_6);
    return _e4;
}

V4_ values5_(
    Raw raw_5,
    Scale scale_7
) {
    V4_ _e4 = high_quad(raw_5.q.z, scale_7);
    return _e4;
}

V4_ values6_(
    Raw raw_6,
    Scale scale_8
) {
    V4_ _e4 = low_quad(raw_6.q.w, scale_8);
    return _e4;
}

V4_ values7_(
    Raw raw_7,
    Scale scale_9
) {
    V4_ _e4 = high_quad(raw_7.q.w, scale_9);
    return _e4;
}

Scale scale_of(
    Raw raw_8
) {
    uint both = raw_8.scale >> raw_8.shift;
    metal::float2 factors = float2(as_type<half2>(raw_8.factors));
    return Scale {static_cast<float>(factors.x * static_cast<float>(both & 255u)), static_cast<float>(factors.y * static_cast<float>((both >> 8u) & 255u))};
}

Raw load_raw(
    uint tile,
    uint lane_1,
    uint super_index,
    device type_3 const& quants,
    device type_4 const& scales,
    device type_4 const& supers,
    constant _mslBufferSizes& _buffer_sizes
) {
    Quants _e8 = quants[(tile * 32u) + lane_1];
    uint _e16 = scales[(tile * 16u) + (lane_1 >> 1u)];
    uint _e23 = supers[super_index];
    return Raw {_e8, _e16, (lane_1 & 1u) * 16u, _e23};
}

void setup(
    uint local_index
) {
    return;
}

float x_value(
    uint token,
    uint col,
    device type_5 const& x,
    constant Immediates& imm,
    constant _mslBufferSizes& _buffer_sizes
) {
    uint _e5 = imm.x_stride;
    float _e9 = x[(token * _e5) + col];
    return _e9;
}

metal::float4 x_values(
    uint token_1,
    uint col_1,
    device type_5 const& x,
    constant Immediates& imm,
    constant _mslBufferSizes& _buffer_sizes
) {
    float _e2 = x_value(token_1, col_1, x, imm, _buffer_sizes);
    float _e5 = x_value(token_1, col_1 + 1u, x, imm, _buffer_sizes);
    float _e8 = x_value(token_1, col_1 + 2u, x, imm, _buffer_sizes);
    float _e11 = x_value(token_1, col_1 + 3u, x, imm, _buffer_sizes);
    return metal::float4(_e2, _e5, _e8, _e11);
}
uint naga_mod(uint lhs, uint rhs) {
    return lhs % metal::select(rhs, 1u, rhs == 0u);
}

uint naga_div(uint lhs, uint rhs) {
    return lhs / metal::select(rhs, 1u, rhs == 0u);
}


struct main_Input {
};
[[max_total_threads_per_threadgroup(256)]] kernel void main_(
  metal::uint3 group [[threadgroup_position_in_grid]]
, uint lane [[thread_index_in_threadgroup]]
, device type_3 const& quants [[user(fake0)]]
, device type_4 const& scales [[user(fake0)]]
, device type_4 const& supers [[user(fake0)]]
, device type_5 const& x [[user(fake0)]]
, device type_5& out [[user(fake0)]]
, constant Immediates& imm [[user(fake0)]]
, threadgroup type_6& sums
, constant _mslBufferSizes& _buffer_sizes [[user(fake0)]]
) {
    if (lane == 0u) {
        sums = {};
    }
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    metal::float4 sum0_ = metal::float4(0.0);
    metal::float4 sum1_ = metal::float4(0.0);
    metal::float4 sum2_ = metal::float4(0.0);
    metal::float4 sum3_ = metal::float4(0.0);
    uint chunk = {};
    float total = 0.0;
    uint i = 0u;
    setup(lane);
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    uint block = naga_mod(lane, 32u);
    uint row = naga_div(block, 2u);
    uint first_token = group.y * 4u;
    chunk = naga_div(lane, 32u);
    uint2 loop_bound = uint2(4294967295u);
    bool loop_init = true;
    while(true) {
        if (metal::all(loop_bound == uint2(0u))) { break; }
        loop_bound -= uint2(loop_bound.y == 0u, 1u);
        if (!loop_init) {
            uint _e294 = chunk;
            chunk = _e294 + 8u;
        }
        loop_init = false;
        uint _e24 = chunk;
        uint _e27 = imm.chunks;
        if (_e24 < _e27) {
        } else {
            break;
        }
        {
            uint _e29 = chunk;
            uint col_2 = (_e29 * 64u) + (naga_mod(block, 2u) * 32u);
            uint _e39 = imm.cols;
            if (col_2 >= _e39) {
                continue;
            }
            uint _e44 = imm.chunks;
            uint _e46 = chunk;
            uint _e51 = imm.supers;
            uint _e53 = chunk;
            Raw _e60 = load_raw((group.x * _e44) + _e46, block, (((group.x * _e51) + naga_div(_e53, 4u)) * 16u) + row, quants, scales, supers, _buffer_sizes);
            Scale _e61 = scale_of(_e60);
            {
                V4_ _e62 = values0_(_e60, _e61);
                metal::float4 _e67 = x_values(first_token + 0u, col_2 + 0u, x, imm, _buffer_sizes);
                metal::float4 _e68 = sum0_;
                sum0_ = metal::fma(_e62, _e67, _e68);
                metal::float4 _e74 = x_values(first_token + 1u, col_2 + 0u, x, imm, _buffer_sizes);
                metal::float4 _e75 = sum1_;
                sum1_ = metal::fma(_e62, _e74, _e75);
                metal::float4 _e81 = x_values(first_token + 2u, col_2 + 0u, x, imm, _buffer_sizes);
                metal::float4 _e82 = sum2_;
                sum2_ = metal::fma(_e62, _e81, _e82);
                metal::float4 _e88 = x_values(first_token + 3u, col_2 + 0u, x, imm, _buffer_sizes);
                metal::float4 _e89 = sum3_;
                sum3_ = metal::fma(_e62, _e88, _e89);
            }
            {
                V4_ _e91 = values1_(_e60, _e61);
                metal::float4 _e96 = x_values(first_token + 0u, col_2 + 4u, x, imm, _buffer_sizes);
                metal::float4 _e97 = sum0_;
                sum0_ = metal::fma(_e91, _e96, _e97);
                metal::float4 _e103 = x_values(first_token + 1u, col_2 + 4u, x, imm, _buffer_sizes);
                metal::float4 _e104 = sum1_;
                sum1_ = metal::fma(_e91, _e103, _e104);
                metal::float4 _e110 = x_values(first_token + 2u, col_2 + 4u, x, imm, _buffer_sizes);
                metal::float4 _e111 = sum2_;
                sum2_ = metal::fma(_e91, _e110, _e111);
                metal::float4 _e117 = x_values(first_token + 3u, col_2 + 4u, x, imm, _buffer_sizes);
                metal::float4 _e118 = sum3_;
                sum3_ = metal::fma(_e91, _e117, _e118);
            }
            {
                V4_ _e120 = values2_(_e60, _e61);
                metal::float4 _e125 = x_values(first_token + 0u, col_2 + 8u, x, imm, _buffer_sizes);
                metal::float4 _e126 = sum0_;
                sum0_ = metal::fma(_e120, _e125, _e126);
                metal::float4 _e132 = x_values(first_token + 1u, col_2 + 8u, x, imm, _buffer_sizes);
                metal::float4 _e133 = sum1_;
                sum1_ = metal::fma(_e120, _e132, _e133);
                metal::float4 _e139 = x_values(first_token + 2u, col_2 + 8u, x, imm, _buffer_sizes);
                metal::float4 _e140 = sum2_;
                sum2_ = metal::fma(_e120, _e139, _e140);
                metal::float4 _e146 = x_values(first_token + 3u, col_2 + 8u, x, imm, _buffer_sizes);
                metal::float4 _e147 = sum3_;
                sum3_ = metal::fma(_e120, _e146, _e147);
            }
            {
                V4_ _e149 = values3_(_e60, _e61);
                metal::float4 _e154 = x_values(first_token + 0u, col_2 + 12u, x, imm, _buffer_sizes);
                metal::float4 _e155 = sum0_;
                sum0_ = metal::fma(_e149, _e154, _e155);
                metal::float4 _e161 = x_values(first_token + 1u, col_2 + 12u, x, imm, _buffer_sizes);
                metal::float4 _e162 = sum1_;
                sum1_ = metal::fma(_e149, _e161, _e162);
                metal::float4 _e168 = x_values(first_token + 2u, col_2 + 12u, x, imm, _buffer_sizes);
                metal::float4 _e169 = sum2_;
                sum2_ = metal::fma(_e149, _e168, _e169);
                metal::float4 _e175 = x_values(first_token + 3u, col_2 + 12u, x, imm, _buffer_sizes);
                metal::float4 _e176 = sum3_;
                sum3_ = metal::fma(_e149, _e175, _e176);
            }
            {
                V4_ _e178 = values4_(_e60, _e61);
                metal::float4 _e183 = x_values(first_token + 0u, col_2 + 16u, x, imm, _buffer_sizes);
                metal::float4 _e184 = sum0_;
                sum0_ = metal::fma(_e178, _e183, _e184);
                metal::float4 _e190 = x_values(first_token + 1u, col_2 + 16u, x, imm, _buffer_sizes);
                metal::float4 _e191 = sum1_;
                sum1_ = metal::fma(_e178, _e190, _e191);
                metal::float4 _e197 = x_values(first_token + 2u, col_2 + 16u, x, imm, _buffer_sizes);
                metal::float4 _e198 = sum2_;
                sum2_ = metal::fma(_e178, _e197, _e198);
                metal::float4 _e204 = x_values(first_token + 3u, col_2 + 16u, x, imm, _buffer_sizes);
                metal::float4 _e205 = sum3_;
                sum3_ = metal::fma(_e178, _e204, _e205);
            }
            {
                V4_ _e207 = values5_(_e60, _e61);
                metal::float4 _e212 = x_values(first_token + 0u, col_2 + 20u, x, imm, _buffer_sizes);
                metal::float4 _e213 = sum0_;
                sum0_ = metal::fma(_e207, _e212, _e213);
                metal::float4 _e219 = x_values(first_token + 1u, col_2 + 20u, x, imm, _buffer_sizes);
                metal::float4 _e220 = sum1_;
                sum1_ = metal::fma(_e207, _e219, _e220);
                metal::float4 _e226 = x_values(first_token + 2u, col_2 + 20u, x, imm, _buffer_sizes);
                metal::float4 _e227 = sum2_;
                sum2_ = metal::fma(_e207, _e226, _e227);
                metal::float4 _e233 = x_values(first_token + 3u, col_2 + 20u, x, imm, _buffer_sizes);
                metal::float4 _e234 = sum3_;
                sum3_ = metal::fma(_e207, _e233, _e234);
            }
            {
                V4_ _e236 = values6_(_e60, _e61);
                metal::float4 _e241 = x_values(first_token + 0u, col_2 + 24u, x, imm, _buffer_sizes);
                metal::float4 _e242 = sum0_;
                sum0_ = metal::fma(_e236, _e241, _e242);
                metal::float4 _e248 = x_values(first_token + 1u, col_2 + 24u, x, imm, _buffer_sizes);
                metal::float4 _e249 = sum1_;
                sum1_ = metal::fma(_e236, _e248, _e249);
                metal::float4 _e255 = x_values(first_token + 2u, col_2 + 24u, x, imm, _buffer_sizes);
                metal::float4 _e256 = sum2_;
                sum2_ = metal::fma(_e236, _e255, _e256);
                metal::float4 _e262 = x_values(first_token + 3u, col_2 + 24u, x, imm, _buffer_sizes);
                metal::float4 _e263 = sum3_;
                sum3_ = metal::fma(_e236, _e262, _e263);
            }
            {
                V4_ _e265 = values7_(_e60, _e61);
                metal::float4 _e270 = x_values(first_token + 0u, col_2 + 28u, x, imm, _buffer_sizes);
                metal::float4 _e271 = sum0_;
                sum0_ = metal::fma(_e265, _e270, _e271);
                metal::float4 _e277 = x_values(first_token + 1u, col_2 + 28u, x, imm, _buffer_sizes);
                metal::float4 _e278 = sum1_;
                sum1_ = metal::fma(_e265, _e277, _e278);
                metal::float4 _e284 = x_values(first_token + 2u, col_2 + 28u, x, imm, _buffer_sizes);
                metal::float4 _e285 = sum2_;
                sum2_ = metal::fma(_e265, _e284, _e285);
                metal::float4 _e291 = x_values(first_token + 3u, col_2 + 28u, x, imm, _buffer_sizes);
                metal::float4 _e292 = sum3_;
                sum3_ = metal::fma(_e265, _e291, _e292);
            }
        }
    }
    uint lane_of_row = (naga_div(lane, 32u) * 2u) + naga_mod(block, 2u);
    float _e312 = sum0_.x;
    float _e314 = sum0_.y;
    float _e317 = sum0_.z;
    float _e319 = sum0_.w;
    sums.inner[(0u + (row * 16u)) + lane_of_row] = (_e312 + _e314) + (_e317 + _e319);
    float _e330 = sum1_.x;
    float _e332 = sum1_.y;
    float _e335 = sum1_.z;
    float _e337 = sum1_.w;
    sums.inner[(256u + (row * 16u)) + lane_of_row] = (_e330 + _e332) + (_e335 + _e337);
    float _e348 = sum2_.x;
    float _e350 = sum2_.y;
    float _e353 = sum2_.z;
    float _e355 = sum2_.w;
    sums.inner[(512u + (row * 16u)) + lane_of_row] = (_e348 + _e350) + (_e353 + _e355);
    float _e366 = sum3_.x;
    float _e368 = sum3_.y;
    float _e371 = sum3_.z;
    float _e373 = sum3_.w;
    sums.inner[(768u + (row * 16u)) + lane_of_row] = (_e366 + _e368) + (_e371 + _e373);
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    if (lane < 64u) {
        uint token_2 = naga_div(lane, 16u);
        uint out_row = (group.x * 16u) + naga_mod(lane, 16u);
        uint _e388 = imm.rows;
        if (out_row < _e388) {
            uint2 loop_bound_1 = uint2(4294967295u);
            bool loop_init_1 = true;
            while(true) {
                if (metal::all(loop_bound_1 == uint2(0u))) { break; }
                loop_bound_1 -= uint2(loop_bound_1.y == 0u, 1u);
                if (!loop_init_1) {
                    uint _e407 = i;
                    i = _e407 + 1u;
                }
                loop_init_1 = false;
                uint _e394 = i;
                if (_e394 < 16u) {
                } else {
                    break;
                }
                {
                    float _e397 = total;
                    uint _e401 = i;
                    float _e404 = sums.inner[(lane * 16u) + _e401];
                    total = _e397 + _e404;
                }
            }
            uint _e413 = imm.out_stride;
            uint _e417 = imm.out_first;
            float _e421 = total;
            out[(((first_token + token_2) * _e413) + _e417) + out_row] = _e421;
            return;
        } else {
            return;
        }
    } else {
        return;
    }
}
