"""What more devices bring: speeds and epochs predicted from few measured points, and tested. Never imports torch."""
