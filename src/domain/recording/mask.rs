//! Which typed bytes the terminal did not echo.
