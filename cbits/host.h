/* The host: its calls, its clock, its pages. */
#ifndef DWC_HOST_H
#define DWC_HOST_H

#include <stdint.h>

#define DWC_PAGE 4096u

long dwc_ioctl(int fd, unsigned long request, void *argument);
uint64_t dwc_now_ns(void);

#endif
