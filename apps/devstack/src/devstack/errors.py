"""The ways in which the stack ends before its time."""


class StackError(Exception):
    """The stack cannot start or go on; the text is a sentence that ends with the next step."""


class Stopping(BaseException):
    """Somebody asked the stack to stop. Not an error, hence no Exception: nothing but the outermost level takes it."""
