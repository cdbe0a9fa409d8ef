/*
 * Inquiries: requests that only want to know or mark what is on disk. Each is one order, made when the request comes;
 * it is parked until the order is back, and then looks at the result under its number.
 *
 * Loop thread only.
 */
#pragma once

struct file_order;
struct service;

/* The host has done an order; takes it. The model of the request is to be touched, so that it is handled again. */
void inquiry_done(struct service *service, struct file_order *order);

/* Requests have looked by now; what is left is of some that have gone away. */
void inquiry_sweep(struct service *service);

void inquiry_finish(struct service *service);
