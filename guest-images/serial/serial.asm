; Two serial ports: a line goes to each of COM1 and COM2, a byte to one and a byte to the other, and what comes to COM2 by interrupt is
; sent back there, up to EOT. Without a COM2 nothing may answer at its ports.
%include "common.inc"
COM2    equ 0x2f8
COM2_VECTOR equ 0x23
EOT     equ 4
        mov edx, COM2 + 7       ; the scratch register
        mov al, 0x5a
        out dx, al
        in al, dx
        cmp al, 0xff
        je .absent
        cmp al, 0x5a
        check 1, e
        gate COM2_VECTOR, received
        load_idt
        start_pic
        mov al, 0xf7            ; IRQ 3 alone
        out 0x21, al
        mov edx, COM2 + 2
        mov al, 1               ; FIFO
        out dx, al
        mov edx, COM2 + 4
        mov al, 0x0b            ; DTR, RTS, and OUT2, which opens the interrupt line
        out dx, al
        mov edx, COM2 + 1
        mov al, 1               ; interrupt when bytes have come
        out dx, al
        lea rsi, [rel first]
        lea rdi, [rel second]
.next:  mov al, [rsi]
        mov edx, COM1
        out dx, al
        mov al, [rdi]
        mov edx, COM2
        out dx, al
        inc rsi
        inc rdi
        cmp byte [rsi], 0
        jne .next
        xor r15d, r15d          ; set by the handler
.sleep: cli
        test r15d, r15d
        jnz .over
        sti
        hlt
        jmp .sleep
.over:  print token
        finish 0
.absent:
        mov edx, COM2
.port:  in al, dx
        cmp al, 0xff
        check 2, e
        inc edx
        cmp edx, COM2 + 8
        jb .port
        print token
        finish 0

received:
        push rax
        push rdx
.look:  mov edx, COM2 + 5
        in al, dx
        test al, 1
        jz .none
        mov edx, COM2
        in al, dx
        cmp al, EOT
        je .end
        out dx, al
        jmp .look
.end:   mov r15d, 1
        jmp .look
.none:  end_of_interrupt
        pop rdx
        pop rax
        iretq

failed: mov al, r14b
        out DEBUGEXIT, al
        jmp $
first:  db "serial: one", 10, 0
second: db "serial: two", 10, 0
token:  db "serial: OK", 10, 0
        library
        interrupt_table
