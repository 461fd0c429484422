; Instructions that give what is the CPU's or the host's, where software does not expect it: each is executed in ring 0, or is an
; exception; what it gives goes to memory. RDTSCP's ECX and RDPID: the number of a CPU. XGETBV(1), XSAVEOPT, XSAVEC: which
; registers are in use. SMSW, RDPMC, SGDT, SIDT, STR: registers of the machine. FXSAVE: pointers of the x87.
%include "common.inc"
ROUNDS  equ 6
CR4_OSFXSR equ 1 << 9
CR4_OSXSAVE equ 1 << 18
        gate 6, undefined
        gate 13, protection
        load_idt
        mov rax, cr4
        or eax, CR4_OSFXSR
        mov cr4, rax
        mov eax, 1
        cpuid
        bt ecx, 26              ; XSAVE
        jnc .begin
        mov rax, cr4
        or eax, CR4_OSXSAVE
        mov cr4, rax
        xor ecx, ecx
        mov eax, 3
        xor edx, edx
        xsetbv
.begin: mov r12d, ROUNDS

%macro try 1+                   ; INSTRUCTION: what it leaves in registers goes to memory
        lea r8, [rel %%after]
        xor eax, eax
        xor edx, edx
        mov ecx, 1
        %1
%%after:
        mov [rel area], rax
        mov [rel area + 8], rdx
        mov [rel area + 16], rcx
        mov al, r12b
        out POST, al
%endmacro

.round: fldpi
        fmul st0
        fstp qword [rel area + 32]
        pxor xmm3, xmm3
        try rdtscp
        try db 0xf3, 0x0f, 0xc7, 0xf8   ; RDPID RAX
        try xgetbv
        try rdpmc
        try smsw eax
        try str eax
        try sgdt [rel area + 64]
        try sidt [rel area + 80]
        try fxsave64 [rel image]
        mov eax, 3
        try xsaveopt64 [rel image + 512]
        try xsavec64 [rel image + 2048]
        dec r12d
        jnz .round
        print token
        finish 0
protection:
        add rsp, 8              ; the error code
undefined:
        mov [rsp], r8
        iretq
token:  db "hidden: OK", 10, 0
        library
        interrupt_table
        align 64
area:   times 128 db 0
image:  times 4096 db 0
