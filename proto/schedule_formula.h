/*
 * The formulas of the schedules, and the indices of their keys. Internal to the schedule module: schedule_table.c
 * joins each function with its row, everybody else calls schedule_at.
 *
 * A formula receives the key values in the order of the enumeration above its name, all inside the row's ranges.
 */
#pragma once

#include "proto/schedule.h"

/* Replaces values that formulas work out from other values by these, so that many calls need it once. */
void schedule_values_prepare(const struct schedule_kind *kind, double *values);

struct schedule_result constant_at(const double *values, const struct schedule_call *call);
enum { CONSTANT_DECAY };

struct schedule_result yolo_at(const double *values, const struct schedule_call *call);
enum { YOLO_DECAY, YOLO_TAU, YOLO_UPDATES };

struct schedule_result tf_at(const double *values, const struct schedule_call *call);
enum { TF_DECAY, TF_NUM_UPDATES };

struct schedule_result torch_ema_at(const double *values, const struct schedule_call *call);
enum { TORCH_EMA_DECAY, TORCH_EMA_USE_NUM_UPDATES };

struct schedule_result timm_at(const double *values, const struct schedule_call *call);
struct schedule_result diffusers_at(const double *values, const struct schedule_call *call);
enum { WARMUP_DECAY, WARMUP_MIN_DECAY, WARMUP_AFTER, WARMUP_WARMUP, WARMUP_GAMMA, WARMUP_POWER };

struct schedule_result k_diffusion_at(const double *values, const struct schedule_call *call);
enum { KD_GAMMA, KD_POWER, KD_MIN, KD_MAX, KD_START_AT };

struct schedule_result ema_pytorch_at(const double *values, const struct schedule_call *call);
enum { EP_DECAY, EP_AFTER, EP_EVERY, EP_GAMMA, EP_POWER, EP_MIN };

struct schedule_result ema_pytorch_karras_at(const double *values, const struct schedule_call *call);
enum { KARRAS_SIGMA, KARRAS_EVERY, KARRAS_GAMMA };

struct schedule_result power_at(const double *values, const struct schedule_call *call);
enum { POWER_STD, POWER_GAMMA };

struct schedule_result edm_at(const double *values, const struct schedule_call *call);
enum { EDM_HALFLIFE, EDM_RAMPUP };

struct schedule_result half_life_at(const double *values, const struct schedule_call *call);
enum { HL_HALF_LIFE, HL_INTERVAL, HL_START };

struct schedule_result torchtitan_at(const double *values, const struct schedule_call *call);
enum { TITAN_FRACTION, TITAN_START, TITAN_EVERY, TITAN_BIAS, TITAN_DECAY };

struct schedule_result swa_at(const double *values, const struct schedule_call *call);
enum { SWA_INTERVAL, SWA_USE_BUFFERS };

struct schedule_result averaged_model_at(const double *values, const struct schedule_call *call);
enum { AVERAGED_MODEL_DECAY, AVERAGED_MODEL_USE_BUFFERS };

struct schedule_result mmengine_at(const double *values, const struct schedule_call *call);
struct schedule_result mmengine_annealing_at(const double *values, const struct schedule_call *call);
struct schedule_result mmdet_exp_at(const double *values, const struct schedule_call *call);
enum { MM_MOMENTUM, MM_INTERVAL, MM_UPDATE_BUFFERS, MM_GAMMA };

struct schedule_result keras_at(const double *values, const struct schedule_call *call);
enum { KERAS_MOMENTUM };

struct schedule_result lightning_at(const double *values, const struct schedule_call *call);
enum { LIGHTNING_DECAY, LIGHTNING_EVERY, LIGHTNING_START };

struct schedule_result fairseq_at(const double *values, const struct schedule_call *call);
enum { FAIRSEQ_DECAY, FAIRSEQ_START, FAIRSEQ_EVERY };

struct schedule_result linear_at(const double *values, const struct schedule_call *call);
struct schedule_result cosine_at(const double *values, const struct schedule_call *call);
enum { RAMP_START, RAMP_END, RAMP_TOTAL };

struct schedule_result optax_at(const double *values, const struct schedule_call *call);
enum { OPTAX_DECAY, OPTAX_DEBIAS };

struct schedule_result paddle_at(const double *values, const struct schedule_call *call);
enum { PADDLE_DECAY, PADDLE_MODE, PADDLE_DEBIAS };
enum { PADDLE_THRESHOLD, PADDLE_EXPONENTIAL };
